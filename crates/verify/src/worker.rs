//! The worker as a process: started, asked, watched, and ended whatever it does.
//!
//! It has a process group of its own, so that Ctrl-C in a terminal is this program's to pass on, and nothing that it
//! starts is left behind. Should this program be killed, the kernel ends the worker (on Linux), or the end of its
//! standard input does.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, setrlimit, waitid,
};

use crate::protocol::{EngineInfo, Event, Report, Request, VERSION};
use crate::{machine, words};

/// A line longer than this is none of the protocol's: the longest has the logits of a large vocabulary.
const LINE_LIMIT: u64 = 64 << 20;
/// How often it is looked whether to go on waiting.
const TICK: Duration = Duration::from_millis(50);
/// How long a worker may take to end by itself once its input has ended.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long it may take once it was told to end, before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// Characters kept of what it complained of last.
const COMPLAINTS: usize = 4000;

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Variables to set for it.
    pub env: Vec<(OsString, OsString)>,
    /// How long it may take to say that it is ready.
    pub startup: Duration,
}

/// Why there is no worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoWorker {
    /// It is not installed, or was built without MLX: levels beyond `structure` are not there on this machine.
    #[error("{0}")]
    Absent(String),
    /// It is there and does not work.
    #[error("{0}")]
    Broken(String),
}

/// Why a model has no report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A signal that nobody here sent.
    Signal(i32),
    /// It ended by itself.
    Exit(i32),
    /// It did not answer in time.
    TooSlow(Duration),
    /// It held more memory than it may.
    TooMuchMemory { held: u64, limit: u64 },
    /// It said something that is no event.
    Garbage(String),
    /// It closed its output and did not end.
    Silent,
    /// The user wants an end.
    Interrupted,
}

enum Heard {
    Event(Box<Event>),
    Garbage(String),
}

/// What a request is watched by.
pub(crate) struct Watch<'a> {
    pub(crate) limit: Duration,
    pub(crate) memory: Option<u64>,
    pub(crate) interrupted: &'a dyn Fn() -> bool,
    pub(crate) phase: &'a mut dyn FnMut(&str, u64, u64),
}

/// A running worker. It is killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    heard: Receiver<Heard>,
    complaints: Arc<Mutex<String>>,
    /// Closed when nothing more is complained of.
    noted: Receiver<()>,
    pub(crate) engine: EngineInfo,
    ended: Option<ExitStatus>,
    /// When its memory was looked at last.
    weighed: Instant,
}

/// Process groups that are alive.
static LIVE: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills every worker at once: for a program that is about to end without waiting for anything.
pub fn kill_all() {
    for group in LIVE.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(group) = Pid::from_raw(*group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Worker {
    /// Starts one and waits until it is ready. The thread that calls this has to outlive the worker: where the kernel
    /// ends it with its parent, it is the thread that counts.
    pub(crate) fn start(launch: &Launch, interrupted: &dyn Fn() -> bool) -> Result<Self, NoWorker> {
        let program = launch.program.display();
        let mut command = Command::new(&launch.program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(launch.env.iter().map(|(name, value)| (name, value))).process_group(0);
        prepare(&mut command);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NoWorker::Absent(format!(
                "the worker {program} is not there: `cargo xtask install` puts it beside mlxman, MLXMAN_WORKER names it \
                 elsewhere"
            )),
            _ => NoWorker::Broken(format!(
                "the worker {program} cannot be started: {error}; `cargo xtask install` installs it anew"
            )),
        })?;
        let group = Pid::from_child(&child);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(group.as_raw_nonzero().get());
        // Should memory run out, the kernel is to take the worker, not this program or the user's others.
        let _ = fs_err::write(format!("/proc/{}/oom_score_adj", child.id()), "1000");
        let (sender, heard) = channel();
        let complaints = Arc::new(Mutex::new(String::new()));
        let (noting, noted) = channel::<()>();
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || listen(stdout, &sender));
        }
        if let Some(stderr) = child.stderr.take() {
            let complaints = Arc::clone(&complaints);
            std::thread::spawn(move || {
                note(stderr, &complaints);
                drop(noting);
            });
        }
        let mut worker = Worker {
            child,
            group,
            stdin,
            heard,
            complaints,
            noted,
            engine: EngineInfo::default(),
            ended: None,
            weighed: Instant::now(),
        };
        let watch = Watch { limit: launch.startup, memory: None, interrupted, phase: &mut |_, _, _| {} };
        let broken = |what: String| {
            NoWorker::Broken(format!(
                "the worker {program} {what}; `cargo xtask install` installs one that fits this mlxman"
            ))
        };
        match worker.next(&watch, Instant::now()) {
            Ok(Event::Ready { protocol, .. }) if protocol != VERSION => Err(broken(format!(
                "speaks version {protocol} of the protocol, and this mlxman speaks {VERSION}"
            ))),
            Ok(Event::Ready { engine: None, .. }) => Err(NoWorker::Absent(format!(
                "the worker {program} was built without MLX: `cargo xtask install` builds one with it"
            ))),
            Ok(Event::Ready { engine: Some(engine), .. }) => {
                worker.engine = engine;
                Ok(worker)
            }
            Ok(_) => Err(broken("did not begin with `ready`".to_owned())),
            Err(ended) => {
                worker.terminate();
                let complaint = worker.complaint().map(|text| format!(": {text}")).unwrap_or_default();
                Err(broken(match ended {
                    Ended::TooSlow(limit) => format!("was not ready within {} s{complaint}", limit.as_secs()),
                    Ended::Signal(signal) => {
                        format!("was ended by {} before it was ready{complaint}", words::signal(signal))
                    }
                    Ended::Exit(code) => format!("ended with status {code} before it was ready{complaint}"),
                    Ended::Garbage(text) => format!("does not speak the protocol, it says `{text}`"),
                    _ => format!("did not become ready{complaint}"),
                }))
            }
        }
    }

    /// Asks about a model. After an `Err` the worker is of no use any more, and has ended.
    pub(crate) fn ask(&mut self, request: &Request, watch: &mut Watch<'_>) -> Result<Report, Ended> {
        let started = Instant::now();
        let asked = serde_json::to_vec(request).map(|mut line| {
            line.push(b'\n');
            self.stdin.as_mut().map(|stdin| stdin.write_all(&line).and_then(|()| stdin.flush()))
        });
        // Where it could not be written to, it has ended, which is heard next.
        drop(asked);
        let ended = loop {
            match self.next(watch, started) {
                Ok(Event::Done { id, report }) if id == request.id => return Ok(*report),
                Ok(Event::Phase { id, phase, done, total }) if id == request.id => {
                    (watch.phase)(&phase, done, total);
                }
                Ok(other) => {
                    let text = serde_json::to_string(&other).unwrap_or_default();
                    break Ended::Garbage(words::tail(&text, 200));
                }
                Err(ended) => break ended,
            }
        };
        self.terminate();
        Err(ended)
    }

    /// The next event. Whoever asks is asked in turn, and the limits are looked at, also while it talks without pause.
    fn next(&mut self, watch: &Watch<'_>, started: Instant) -> Result<Event, Ended> {
        loop {
            if (watch.interrupted)() {
                return Err(Ended::Interrupted);
            }
            if started.elapsed() >= watch.limit {
                return Err(Ended::TooSlow(watch.limit));
            }
            if let Some(limit) = watch.memory
                && self.weighed.elapsed() >= 4 * TICK
            {
                self.weighed = Instant::now();
                if let Some(held) = machine::held_by(self.child.id()).filter(|held| *held > limit) {
                    return Err(Ended::TooMuchMemory { held, limit });
                }
            }
            match self.heard.recv_timeout(TICK) {
                Ok(Heard::Event(event)) => return Ok(*event),
                Ok(Heard::Garbage(text)) => return Err(Ended::Garbage(text)),
                Err(RecvTimeoutError::Disconnected) => {
                    let Some(status) = self.wait(FAREWELL) else { return Err(Ended::Silent) };
                    return Err(match (status.signal(), status.code()) {
                        (Some(signal), _) => Ended::Signal(signal),
                        (None, code) => Ended::Exit(code.unwrap_or(0)),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What it complained of last, on one line. It has ended, and its last words may still be on their way.
    pub(crate) fn complaint(&self) -> Option<String> {
        let _ = self.noted.recv_timeout(FAREWELL);
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let last = complaints.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(words::tail(last, 300))
    }

    fn wait(&mut self, most: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + most;
        while self.ended.is_none() {
            // Looked at without being waited for: until then its number is no other's, and the group can be killed with
            // what the worker left in it.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let over = !matches!(waitid(WaitId::Pid(self.group), options), Ok(None));
            if over {
                self.kill();
            } else if Instant::now() >= until {
                return None;
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.ended
    }

    /// Ends a healthy one: its input ends, and so does it.
    pub(crate) fn farewell(mut self) {
        self.stdin = None;
        if self.wait(FAREWELL).is_none() {
            self.terminate();
        }
    }

    /// Ends one that does not answer: it is told to, and killed if it does not.
    fn terminate(&mut self) {
        self.stdin = None;
        if self.ended.is_none() {
            let _ = kill_process_group(self.group, Signal::TERM);
            self.wait(GRACE);
        }
        self.kill();
    }

    fn kill(&mut self) {
        // Once it was waited for, its number may be another's.
        if self.ended.is_none() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.ended = Some(self.child.wait().unwrap_or_default());
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
        }
        let group = self.group.as_raw_nonzero().get();
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }
}

/// Readies the worker between fork and exec: no dump of its core, which could have the size of a model, and on Linux the
/// kernel kills it when the thread that starts it ends, however that comes about. (Elsewhere the end of its standard
/// input tells it.)
fn prepare(command: &mut Command) {
    #[cfg(target_os = "linux")]
    let parent = rustix::process::getpid();
    let prepare = move || {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        // Where that is not allowed, nothing depends on it.
        let _ = setrlimit(Resource::Core, none);
        #[cfg(target_os = "linux")]
        {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before that was set.
            if rustix::process::getppid() != Some(parent) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "there is no other way to run anything in the child")]
    // SAFETY: it makes three system calls, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Reads events until the worker closes its output; after garbage nothing more is believed.
fn listen(stdout: impl Read, sender: &Sender<Heard>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stdout.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        let heard = match serde_json::from_slice::<Event>(&line) {
            Ok(event) => Heard::Event(Box::new(event)),
            Err(_) => {
                let start = &line[..line.len().min(200)];
                Heard::Garbage(String::from_utf8_lossy(start).trim_end().to_owned())
            }
        };
        let over = matches!(heard, Heard::Garbage(_));
        if sender.send(heard).is_err() || over {
            // It may not block on a full pipe before it is told to end.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            return;
        }
    }
}

/// Keeps the end of what the worker says to people.
fn note(mut stderr: impl Read, complaints: &Mutex<String>) {
    let mut bytes = [0_u8; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut bytes) {
        let mut text = complaints.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        if text.len() > 2 * COMPLAINTS {
            *text = words::tail(&text, COMPLAINTS);
        }
    }
}
