//! A run over models: each is looked at, asked about in a worker, and judged.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mlxman_manifest::formats::json::read_json;
use mlxman_manifest::{Format, Verdict, Verification, VerifiedLevel, VerifiedModel};
use mlxman_store::{FoundModel, Scan};
use serde_json::Value;

use crate::answers::{ANSWERS_LIMIT, KeptAnswers, Reference, compare, question};
use crate::judge::Judge;
use crate::protocol::{DtypeChoice, EngineInfo, Level, Measure, Report, Request};
use crate::structure::check;
use crate::words;
use crate::worker::{Ended, Launch, NoWorker, Watch, Worker};

/// What a file of answers has, and hardly any other.
const ANSWERS_KEYS: [&str; 3] = ["prompt_ids", "logits_head", "greedy"];

/// One model to verify.
pub struct Task<'a> {
    /// What people call it.
    pub model: String,
    /// Its directory.
    pub path: PathBuf,
    /// Its store, where it lies in one that the registry knows.
    pub store: Option<String>,
    /// Its scan.
    pub scan: &'a Scan,
    /// It, in the scan.
    pub found: &'a FoundModel,
    /// Where its answers were recorded, or would be.
    pub recorded: Option<PathBuf>,
}

/// What is done about known answers.
#[derive(Debug, Clone)]
pub enum Answering {
    /// Nothing.
    Not,
    /// They are asked for, to be kept.
    Record,
    /// They are compared with those recorded, else with `reference.json` in the model's directory, else not at all.
    Auto,
    /// They are compared with these.
    With(Box<Reference>),
}

/// The base of an adapter.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of it.
    pub bytes: u64,
}

/// How to verify.
pub struct Plan<'a> {
    /// How far; as far as can be where nothing is said.
    pub level: Option<Level>,
    /// Whether an architecture that no decoder is known for is a failure.
    pub strict: bool,
    /// In what type to compute.
    pub dtype: DtypeChoice,
    /// What to measure.
    pub measure: Measure,
    /// How long one model may take.
    pub timeout: Duration,
    /// Bytes of memory that all workers together may take; any where it is not known.
    pub memory_limit: Option<u64>,
    /// How many models at once, where memory allows.
    pub jobs: usize,
    /// What is done about known answers.
    pub answering: Answering,
    /// How to start a worker, or why there is none.
    pub worker: Result<Launch, String>,
    /// Finds the base of an adapter by what the adapter calls it, a repo id or a path, and by the adapter's directory.
    pub base: &'a (dyn Fn(&str, &Path) -> Option<Base> + Sync),
    /// The time now.
    pub now: DateTime<Utc>,
}

/// What a run tells while it goes; it may come from other threads. `at` is the model's place among the tasks.
pub trait Observer: Sync {
    /// A model's turn has come.
    fn started(&self, _at: usize) {}
    /// What is done with it: a phase of the protocol, how much of it is done, and of how much.
    fn phase(&self, _at: usize, _phase: &str, _done: u64, _total: u64) {}
    /// It is done.
    fn finished(&self, _at: usize, _outcome: &Outcome) {}
    /// Whether to stop.
    fn interrupted(&self) -> bool {
        false
    }
}

impl Observer for () {}

/// What came of one model.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was found.
    pub result: VerifiedModel,
    /// The answers to record.
    pub answers: Option<KeptAnswers>,
    /// Whether the run was stopped before it was done: then the result says nothing.
    pub interrupted: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// In the order of the tasks.
    pub outcomes: Vec<Outcome>,
    /// Why no model could be loaded though a worker is there.
    pub broken: Option<String>,
}

/// Verifies the models.
pub fn run(tasks: &[Task<'_>], plan: &Plan<'_>, observer: &dyn Observer) -> Run {
    let shared = Shared {
        queue: Mutex::new((0..tasks.len()).collect()),
        outcomes: Mutex::new((0..tasks.len()).map(|_| None).collect()),
        no_worker: Mutex::new(match &plan.worker {
            Ok(_) => None,
            Err(why) => Some(NoWorker::Absent(why.clone())),
        }),
        taken: Mutex::new(0),
        given_back: Condvar::new(),
        plan,
        observer,
    };
    // A worker is started by the thread that uses it, and ended before that ends: see `Worker::start`.
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.clamp(1, tasks.len().max(1)) {
            scope.spawn(|| {
                let mut seat = Seat { shared: &shared, worker: None };
                while let Some(at) = shared.next() {
                    observer.started(at);
                    let outcome = seat.verify(at, &tasks[at]);
                    observer.finished(at, &outcome);
                    locked(&shared.outcomes)[at] = Some(outcome);
                }
                seat.leave();
            });
        }
    });
    let broken = match locked(&shared.no_worker).take() {
        Some(NoWorker::Broken(why)) => Some(why),
        _ => None,
    };
    let outcomes = locked(&shared.outcomes).drain(..).flatten().collect();
    Run { outcomes, broken }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the jobs share.
struct Shared<'a> {
    queue: Mutex<VecDeque<usize>>,
    outcomes: Mutex<Vec<Option<Outcome>>>,
    /// Why no worker can be had, once that is known.
    no_worker: Mutex<Option<NoWorker>>,
    /// Bytes of memory that models being verified may take.
    taken: Mutex<u64>,
    given_back: Condvar,
    plan: &'a Plan<'a>,
    observer: &'a dyn Observer,
}

impl Shared<'_> {
    fn next(&self) -> Option<usize> {
        locked(&self.queue).pop_front()
    }

    /// Waits until there is memory for a model beside those that are being verified. Alone it always gets its turn.
    fn take(&self, bytes: u64) {
        let Some(limit) = self.plan.memory_limit else { return };
        let mut taken = locked(&self.taken);
        while *taken > 0 && taken.saturating_add(bytes) > limit && !self.observer.interrupted() {
            let waited = self.given_back.wait_timeout(taken, Duration::from_millis(100));
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = taken.saturating_add(bytes);
    }

    fn give_back(&self, bytes: u64) {
        if self.plan.memory_limit.is_some() {
            let mut taken = locked(&self.taken);
            *taken = taken.saturating_sub(bytes);
            self.given_back.notify_all();
        }
    }
}

/// One job: a thread and the worker that it keeps warm.
struct Seat<'a> {
    shared: &'a Shared<'a>,
    worker: Option<Worker>,
}

impl Seat<'_> {
    fn verify(&mut self, at: usize, task: &Task<'_>) -> Outcome {
        let plan = self.shared.plan;
        let interrupted = self.shared.observer.interrupted();
        let structure = check(task.scan, task.found);
        let path = task.path.to_string_lossy();
        let judge = Judge {
            structure: &structure,
            path: &path,
            wanted: plan.level.unwrap_or(Level::Generate),
            strict: plan.strict,
            now: plan.now,
        };
        let mut answers = None;
        let mut stopped = interrupted;
        let verification = if interrupted {
            judge.skipped("interrupted before its turn came".to_owned())
        } else {
            self.go(at, task, &judge, &mut answers, &mut stopped)
        };
        Outcome {
            result: VerifiedModel {
                model: task.model.clone(),
                path: path.into_owned(),
                store: task.store.clone(),
                key: task.store.is_some().then(|| task.found.key.clone()),
                verification,
            },
            answers,
            interrupted: stopped,
        }
    }

    fn go(
        &mut self,
        at: usize,
        task: &Task<'_>,
        judge: &Judge<'_>,
        answers: &mut Option<KeptAnswers>,
        stopped: &mut bool,
    ) -> Verification {
        let (plan, observer, structure) = (self.shared.plan, self.shared.observer, judge.structure);
        if structure.failure.is_some() || judge.wanted == Level::Structure {
            return judge.structure_alone(None);
        }
        if !structure.loads {
            let why = format!(
                "MLX reads no {} files, the structure alone was checked",
                structure.observation.format.word()
            );
            return match plan.level {
                Some(_) => judge.skipped(why),
                None => judge.structure_alone(Some(why)),
            };
        }
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(NoWorker::Absent(why)) if plan.level.is_none() => {
                return judge.structure_alone(Some(format!("loading and generating need the engine: {why}")));
            }
            Err(NoWorker::Absent(why) | NoWorker::Broken(why)) => {
                *stopped = observer.interrupted();
                return judge.skipped(why);
            }
        };
        let mut request = Request {
            id: at as u64 + 1,
            model: task.path.clone(),
            adapter: None,
            level: judge.wanted,
            dtype: plan.dtype,
            measure: plan.measure,
            answers: None,
        };
        let on_cpu = engine.device.starts_with("cpu");
        let as_float32 = plan.dtype == DtypeChoice::Float32 || plan.dtype == DtypeChoice::Auto && on_cpu;
        let mut need = structure.memory(as_float32);
        let mut alone = None;
        if structure.observation.format == Format::Adapter {
            let base = structure.observation.adapter.base.clone();
            match base.as_deref().and_then(|base| (plan.base)(base, &task.path)) {
                Some(base) => {
                    request.adapter = Some(std::mem::replace(&mut request.model, base.path));
                    need = need.saturating_add(base.bytes);
                }
                None => {
                    request.level = Level::Load;
                    let base = base.unwrap_or_else(|| "which it does not name".to_owned());
                    alone = Some(format!(
                        "its tensors were read, for its base ({base}) is not here, or not whole"
                    ));
                }
            }
        }
        if let Some(limit) = plan.memory_limit.filter(|limit| need > *limit) {
            return judge.skipped(format!(
                "it needs about {} of memory, and {} may be used: close other programs, or set --memory-limit",
                words::bytes(need),
                words::bytes(limit)
            ));
        }
        let reference = match reference(task, judge, plan) {
            Ok(reference) => reference,
            Err(why) => return judge.skipped(why),
        };
        request.answers = match (&reference, &plan.answering) {
            (Some(reference), _) => Some(reference.question()),
            (None, Answering::Record) => Some(question(structure.observation.architecture.vocabulary_size)),
            (None, _) => None,
        };
        self.shared.take(need);
        let started = Instant::now();
        let mut report = self.ask(at, &request, plan.timeout);
        let mut again = None;
        if let (Ok(first), Some(reference)) = (&report, &reference)
            && let Some(request) = in_own_type(&request, first, reference, judge)
        {
            match self.ask(at, &request, plan.timeout.saturating_sub(started.elapsed())) {
                Ok(second) => again = Some(second),
                // What happens to the second load happens to the model.
                Err(ended) => report = Err(ended),
            }
        }
        self.shared.give_back(need);
        let mut verification = match report {
            Ok(mut report) => {
                if request.level < judge.wanted {
                    report.instead = alone.or(report.instead);
                }
                if let Some(failure) = again.as_ref().and_then(|again| again.failure.clone()) {
                    report.failure = Some(failure);
                }
                let mut verification = judge.reported(&report, &engine);
                if reference.is_none()
                    && matches!(plan.answering, Answering::Auto)
                    && judge.wanted == Level::Generate
                {
                    let recorded = task.recorded.as_ref().is_some_and(|path| path.exists());
                    verification.notes.push(if recorded {
                        "its answers were not compared: those that were recorded are of other files"
                            .to_owned()
                    } else {
                        "its answers were not compared: none are recorded, see --record-answers".to_owned()
                    });
                }
                let answered = again.as_ref().unwrap_or(&report);
                self.answer(answered, reference.as_ref(), judge, task, &mut verification, answers);
                verification
            }
            Err((ended, phase, complaint)) => {
                *stopped = ended == Ended::Interrupted;
                judge.ended(&ended, phase.as_deref(), complaint.as_deref())
            }
        };
        if verification.device.is_none() {
            verification.device = Some(engine.device).filter(|device| !device.is_empty());
        }
        verification
    }

    /// The engine of this seat's worker, which is started if there is none.
    fn engine(&mut self) -> Result<EngineInfo, NoWorker> {
        if let Some(worker) = &self.worker {
            return Ok(worker.engine.clone());
        }
        if let Some(why) = locked(&self.shared.no_worker).clone() {
            return Err(why);
        }
        let launch = self.shared.plan.worker.as_ref().map_err(|why| NoWorker::Absent(why.clone()))?;
        let observer = self.shared.observer;
        match Worker::start(launch, &|| observer.interrupted()) {
            Ok(worker) => Ok(self.worker.insert(worker).engine.clone()),
            Err(why) => {
                // What does not start now will not start for the next model either.
                if !observer.interrupted() {
                    locked(&self.shared.no_worker).get_or_insert_with(|| why.clone());
                }
                Err(why)
            }
        }
    }

    /// The worker's report; or how it ended, at what, and what it said last. It is kept for the next model while it is
    /// in good health.
    fn ask(
        &mut self,
        at: usize,
        request: &Request,
        limit: Duration,
    ) -> Result<Report, (Ended, Option<String>, Option<String>)> {
        let observer = self.shared.observer;
        let Some(mut worker) = self.worker.take() else { return Err((Ended::Silent, None, None)) };
        let mut phase = None;
        let report = worker.ask(
            request,
            &mut Watch {
                limit,
                memory: self.shared.plan.memory_limit,
                interrupted: &|| observer.interrupted(),
                phase: &mut |name, done, total| {
                    observer.phase(at, name, done, total);
                    phase = Some(name.to_owned());
                },
            },
        );
        match report {
            Ok(report) => {
                self.worker = Some(worker);
                Ok(report)
            }
            Err(ended) => Err((ended, phase, worker.complaint())),
        }
    }

    /// Compares or keeps the known answers.
    fn answer(
        &self,
        report: &Report,
        reference: Option<&Reference>,
        judge: &Judge<'_>,
        task: &Task<'_>,
        verification: &mut Verification,
        keep: &mut Option<KeptAnswers>,
    ) {
        if verification.verdict != Verdict::Pass || report.instead.is_some() {
            return;
        }
        match (reference, &report.answers) {
            (Some(reference), Some(answers)) => {
                let checkpoint = judge.structure.checkpoint_dtype();
                let (compared, why) = compare(answers, reference, report.dtype.as_deref(), checkpoint);
                verification.answers = Some(compared);
                if let Some(why) = why {
                    verification.verdict = Verdict::Fail;
                    verification.reason = Some(why);
                    verification.passed = Some(VerifiedLevel::Load);
                }
            }
            (None, Some(answers)) if matches!(self.shared.plan.answering, Answering::Record) => {
                *keep = Some(KeptAnswers {
                    answers: answers.clone(),
                    model: Some(task.model.clone()),
                    dtype: report.dtype.clone(),
                    files: Some(judge.structure.stamp.clone()),
                    recorded_at: Some(judge.now),
                });
            }
            (Some(_), None) if judge.wanted == Level::Generate => {
                verification.verdict = Verdict::Fail;
                verification.reason =
                    Some("the worker gave no answers to compare; this is worth a report".to_owned());
            }
            _ => {}
        }
    }

    fn leave(self) {
        if let Some(worker) = self.worker {
            worker.farewell();
        }
    }
}

/// The request for answers in the checkpoint's own type, where the reference's were and those in float32 differ from
/// them: rounding alone may do that. It is made where it is needed, for half types are slow on a CPU.
fn in_own_type(
    request: &Request,
    report: &Report,
    reference: &Reference,
    judge: &Judge<'_>,
) -> Option<Request> {
    let own = judge.structure.checkpoint_dtype();
    let theirs = reference.kept.dtype.as_deref().or(own);
    let may_be_rounding = request.dtype == DtypeChoice::Auto
        && report.failure.is_none()
        && report.dtype.as_deref() == Some("float32")
        && theirs.is_some_and(|dtype| dtype != "float32");
    let ours = report.answers.as_ref().filter(|_| may_be_rounding)?;
    let (compared, why) = compare(ours, reference, report.dtype.as_deref(), own);
    if why.is_none() && compared.greedy_matched == compared.greedy_total {
        return None;
    }
    Some(Request {
        dtype: DtypeChoice::Checkpoint,
        measure: Measure { trials: 0, ..request.measure },
        ..request.clone()
    })
}

/// The answers to compare with, if any are to be and there are some.
fn reference(task: &Task<'_>, judge: &Judge<'_>, plan: &Plan<'_>) -> Result<Option<Reference>, String> {
    match &plan.answering {
        Answering::Not | Answering::Record => return Ok(None),
        Answering::With(reference) => return Ok(Some(reference.as_ref().clone())),
        Answering::Auto => {}
    }
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        format!(
            "the answers in {} cannot be read: {error}; record them again with --record-answers",
            path.display()
        )
    };
    let usable = |path: PathBuf, kept: KeptAnswers| match kept.check() {
        Ok(()) => Ok(Some(Reference { path, kept })),
        Err(why) => Err(format!("its answers were not compared with {}: {why}", path.display())),
    };
    if let Some(path) = task.recorded.as_ref().filter(|path| path.exists()) {
        let file = fs_err::File::open(path).map_err(|error| unreadable(path, &error))?;
        let kept: KeptAnswers = read_json(file, ANSWERS_LIMIT).map_err(|error| unreadable(path, &error))?;
        // Those of other files say nothing of these.
        if kept.files.as_ref().is_none_or(|files| *files == judge.structure.stamp) {
            return usable(path.clone(), kept);
        }
    }
    let Some(file) = task.found.file("reference.json") else { return Ok(None) };
    let path = task.path.join("reference.json");
    let opened = task.scan.open(file).map_err(|error| unreadable(&path, &error))?;
    match read_json::<Value>(opened, ANSWERS_LIMIT) {
        // A file of that name may be something else of the model's; then there is nothing to compare with.
        Ok(other) if !ANSWERS_KEYS.iter().any(|key| other.get(key).is_some()) => Ok(None),
        Ok(answers) => match serde_json::from_value(answers) {
            Ok(kept) => usable(path, kept),
            Err(error) => Err(unreadable(&path, &error)),
        },
        Err(error) => Err(unreadable(&path, &error)),
    }
}
