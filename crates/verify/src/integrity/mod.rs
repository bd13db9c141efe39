//! The level `integrity`: are the contents those that hashes name. Nothing is loaded, and nothing is asked of a server.
//!
//! All models are looked at first, so that a content that several of them use is read once, for all the hashes that
//! anybody expects of it.

mod expected;
mod fetch;
mod hasher;
mod queue;
mod read;
mod report;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{CHUNK, Check, Checks, HashKind, KnownHash, Marks};
use mlxman_manifest::{ChangedSince, DamagedHow, Format, VerifiedModel};
use mlxman_store::{FileEntry, Scan, Stat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::{Task, locked};
use crate::structure::{Structure, check};
use expected::{Expected, expected};
use fetch::Origin;
use queue::{Queue, Waiting};
use read::{Done, Hashes, PIECE, Wanted};
use report::{About, Finding, Row, of_read};

/// How often what was checked is handed over to be kept: so much a run that is killed reads again.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// How to check contents.
pub struct IntegrityPlan<'a> {
    /// Whether to read again what was checked and has not changed.
    pub again: bool,
    /// When to stop. Then nothing is skipped, and what was checked longest ago comes first.
    pub budget: Option<Duration>,
    /// How many contents are read at once.
    pub threads: usize,
    /// The BLAKE3 that an earlier sync took of a file.
    pub known: &'a (dyn Fn(&Stat) -> Option<KnownHash> + Sync),
    /// The repo that a model came from, by its place among the tasks, where its own files do not say.
    pub repo: &'a (dyn Fn(usize) -> Option<String> + Sync),
    /// The time now.
    pub now: DateTime<Utc>,
}

/// What such a run tells while it goes; it comes from other threads.
pub trait IntegrityObserver: Sync {
    /// So many bytes were read, of so many that are to be, and this file is at hand.
    fn reading(&self, _done: u64, _total: u64, _file: &str) {}
    /// A content is about to be read.
    fn opened(&self, _file: &str) {}
    /// A model is done; `at` is its place among the tasks.
    fn finished(&self, _at: usize, _outcome: &IntegrityOutcome) {}
    /// There is something to be kept.
    fn keep(&self, _checks: &mut Checks) {}
    /// Whether to stop.
    fn interrupted(&self) -> bool {
        false
    }
}

impl IntegrityObserver for () {}

/// What came of one model.
#[derive(Debug, Clone)]
pub struct IntegrityOutcome {
    /// What was found.
    pub result: VerifiedModel,
    /// Whether the run was stopped before all of its files were read.
    pub interrupted: bool,
}

/// What came of all models together, each content counted once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IntegritySummary {
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were read in this run.
    pub read_files: u64,
    /// Bytes that were read in this run.
    pub read_bytes: u64,
    /// Files that are known to be whole, by this run or an earlier one.
    pub whole_files: u64,
    /// Bytes of them.
    pub whole_bytes: u64,
    /// When the file was read whose check is the oldest, of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_check: Option<DateTime<Utc>>,
    /// Seconds that reading took.
    pub seconds: f64,
}

/// What came of a run.
#[derive(Debug)]
pub struct IntegrityRun {
    /// In the order of the tasks.
    pub outcomes: Vec<IntegrityOutcome>,
    /// All together.
    pub summary: IntegritySummary,
}

/// A model, looked at.
struct Looked {
    structure: Structure,
    /// For each of its files: what it should be, and which content it is, where that is to be read.
    files: Vec<(Expected, Option<usize>)>,
    /// What a download recorded and is not there.
    gone: Vec<String>,
}

/// A content: one inode, whatever its names.
struct Content<'a> {
    scan: &'a Scan,
    file: &'a FileEntry,
    kinds: Vec<HashKind>,
    /// What its users expect.
    hashes: Vec<(HashKind, String)>,
    /// Its users among the tasks, each once.
    users: Vec<usize>,
    /// When an earlier run found in it what all of them expect, if it has not changed since.
    checked: Option<DateTime<Utc>>,
}

/// What came of a content.
enum End {
    Read(Hashes),
    Changed,
    Unreadable(String),
    Stopped,
}

/// Checks the contents of the models.
pub fn run(
    tasks: &[Task<'_>],
    plan: &IntegrityPlan<'_>,
    checks: &mut Checks,
    observer: &dyn IntegrityObserver,
) -> IntegrityRun {
    let looked: Vec<OnceLock<Looked>> = tasks.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    in_threads(plan.threads.min(tasks.len()), || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(at).filter(|_| !observer.interrupted()) else { break };
            looked[at].get_or_init(|| look(task, plan));
        }
    });
    let mut looked: Vec<Option<Looked>> = looked.into_iter().map(OnceLock::into_inner).collect();
    let contents = contents(tasks, &mut looked, checks);
    let scrubs = plan.again || plan.budget.is_some();
    let to_read: Vec<Waiting> = contents
        .iter()
        .enumerate()
        .filter(|(_, content)| scrubs || content.checked.is_none())
        .map(|(at, content)| Waiting {
            at,
            size: content.file.stat.size,
            checked: content.checked,
            begun: checks.begun(&content.file.stat).is_some(),
        })
        .collect();
    let mut left: Vec<usize> = vec![0; tasks.len()];
    for user in to_read.iter().flat_map(|one| &contents[one.at].users) {
        left[*user] += 1;
    }
    // Of what an earlier run began with only the rest is read.
    let behind =
        |stat: &Stat| checks.begun(stat).map_or(0, |marks| (marks.at.len() as u64).saturating_mul(CHUNK));
    let rest = |one: &Waiting| one.size.saturating_sub(behind(&contents[one.at].file.stat));
    let total = to_read.iter().map(rest).fold(0, u64::saturating_add);
    let room = to_read.len();
    let shared = Shared {
        tasks,
        plan,
        observer,
        looked: &looked,
        contents: &contents,
        queue: Queue::new(to_read, plan.budget),
        checks: Mutex::new((checks, Instant::now())),
        ends: contents.iter().map(|_| OnceLock::new()).collect(),
        left: left.iter().map(|left| AtomicUsize::new(*left)).collect(),
        outcomes: tasks.iter().map(|_| OnceLock::new()).collect(),
        done: AtomicU64::new(0),
        total,
    };
    for (at, left) in left.iter().enumerate() {
        if *left == 0 {
            shared.finish(at);
        }
    }
    let started = Instant::now();
    in_threads(plan.threads.min(room), || shared.work());
    let seconds = started.elapsed().as_secs_f64();
    // What was not reached is told too.
    (0..tasks.len()).for_each(|at| shared.finish(at));
    let summary = shared.summary(seconds);
    let Shared { outcomes, checks, .. } = shared;
    let (checks, _) = checks.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    observer.keep(checks);
    IntegrityRun { outcomes: outcomes.into_iter().filter_map(OnceLock::into_inner).collect(), summary }
}

/// Does `work` in so many threads, one of them this one.
fn in_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system gives no further thread, those that there are do the work.
            if std::thread::Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

fn look(task: &Task<'_>, plan: &IntegrityPlan<'_>) -> Looked {
    let details = task.scan.details(task.found);
    let of = |file| (expected(task.found, file, &details, plan.known), None);
    Looked {
        structure: check(task.scan, task.found),
        files: task.found.files.iter().map(of).collect(),
        gone: task.scan.gone_since_download(task.found),
    }
}

/// The contents of all models' files that can be checked, each once.
fn contents<'a>(tasks: &[Task<'a>], looked: &mut [Option<Looked>], checks: &Checks) -> Vec<Content<'a>> {
    let mut contents: Vec<Content<'a>> = Vec::new();
    let mut by_inode: HashMap<(u64, u64), usize> = HashMap::new();
    for (at, (task, looked)) in tasks.iter().zip(looked).enumerate() {
        let Some(looked) = looked else { continue };
        for (file, (expected, place)) in task.found.files.iter().zip(&mut looked.files) {
            let Some((kind, hash)) = &expected.hash else { continue };
            let index = *by_inode.entry((file.stat.dev, file.stat.ino)).or_insert_with(|| {
                contents.push(Content {
                    scan: task.scan,
                    file,
                    kinds: Vec::new(),
                    hashes: Vec::new(),
                    users: Vec::new(),
                    checked: None,
                });
                contents.len() - 1
            });
            *place = Some(index);
            let content = &mut contents[index];
            if !content.kinds.contains(kind) {
                content.kinds.push(*kind);
                content.kinds.sort_unstable();
            }
            if !content.hashes.contains(&(*kind, hash.clone())) {
                content.hashes.push((*kind, hash.clone()));
            }
            if content.users.last() != Some(&at) {
                content.users.push(at);
            }
        }
    }
    for content in &mut contents {
        let known = checks.get(&content.file.stat);
        let holds =
            |known: &&Check| content.hashes.iter().all(|(kind, hash)| known.hashes.get(kind) == Some(hash));
        content.checked = known.filter(holds).map(|known| known.at);
    }
    contents
}

/// What the threads share.
struct Shared<'a> {
    tasks: &'a [Task<'a>],
    plan: &'a IntegrityPlan<'a>,
    observer: &'a dyn IntegrityObserver,
    looked: &'a [Option<Looked>],
    contents: &'a [Content<'a>],
    queue: Queue,
    checks: Mutex<(&'a mut Checks, Instant)>,
    ends: Vec<OnceLock<End>>,
    /// How many contents of each model are still to be read.
    left: Vec<AtomicUsize>,
    outcomes: Vec<OnceLock<IntegrityOutcome>>,
    done: AtomicU64,
    total: u64,
}

impl Shared<'_> {
    fn work(&self) {
        let mut buffer = vec![0; PIECE];
        while !self.observer.interrupted() {
            let Some((at, first)) = self.queue.next() else { return };
            let end = self.read(&self.contents[at], first, &mut buffer);
            let stopped = matches!(end, End::Stopped);
            let _ = self.ends[at].set(end);
            if stopped {
                continue;
            }
            for user in &self.contents[at].users {
                if self.left[*user].fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.finish(*user);
                }
            }
        }
    }

    /// Reads a content, and takes note of what was found.
    fn read(&self, content: &Content<'_>, first: bool, buffer: &mut [u8]) -> End {
        let stat = &content.file.stat;
        self.observer.opened(&content.file.real);
        let (should, begun) = {
            let checks = &locked(&self.checks).0;
            let should = content.hashes.first().filter(|(kind, _)| content.kinds.first() == Some(kind));
            let should =
                should.and_then(|(kind, hash)| Some((checks.marks_of(*kind, hash)?.clone(), hash.clone())));
            (should, checks.begun(stat).cloned())
        };
        let read = Cell::new(0);
        let noted = Cell::new(Instant::now());
        let step = |bytes: u64, marks: Option<&[String]>| {
            let now = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.observer.reading(now.min(self.total), self.total, &content.file.real);
            read.set(read.get() + bytes);
            if let (Some(marks), [kind]) = (marks, content.kinds.as_slice())
                && noted.get().elapsed() >= KEEP_EVERY
            {
                noted.set(Instant::now());
                let marks = Marks { kind: *kind, at: marks.to_vec() };
                let check = Check::new(stat, self.plan.now, BTreeMap::new(), Some(marks));
                self.keep(|checks| checks.insert_partly(check));
            }
            self.keep(|_| {});
            !self.observer.interrupted() && self.queue.goes_on(first, read.get())
        };
        let resumes = begun.is_some();
        let mut wanted =
            Wanted { scan: content.scan, file: content.file, kinds: &content.kinds, should, begun };
        let mut done = wanted.read(buffer, &step);
        let as_expected = |hashes: &Hashes| {
            content.hashes.iter().all(|(kind, hash)| hashes.by_kind.get(kind) == Some(hash))
        };
        // Nothing is called damaged by what an earlier run says of its beginning.
        if let Done::Whole(hashes) = &done
            && resumes
            && !as_expected(hashes)
        {
            wanted.begun = None;
            done = wanted.read(buffer, &step);
        }
        match done {
            Done::Whole(hashes) => {
                if as_expected(&hashes) {
                    let (by_kind, marks) = (hashes.by_kind.clone(), hashes.marks.clone());
                    self.keep(|checks| checks.insert(Check::new(stat, self.plan.now, by_kind, marks)));
                }
                End::Read(hashes)
            }
            Done::Stopped(marks) => {
                if marks.is_some() {
                    let check = Check::new(stat, self.plan.now, BTreeMap::new(), marks);
                    self.keep(|checks| checks.insert_partly(check));
                }
                End::Stopped
            }
            Done::Changed => End::Changed,
            Done::Failed(error) => End::Unreadable(error.to_string()),
        }
    }

    /// Takes note of a check, and has them kept from time to time.
    fn keep(&self, note: impl FnOnce(&mut Checks)) {
        let mut guard = locked(&self.checks);
        let (checks, kept) = &mut *guard;
        note(checks);
        if kept.elapsed() >= KEEP_EVERY {
            self.observer.keep(checks);
            *kept = Instant::now();
        }
    }

    /// What came of a file of a model.
    fn finding(&self, file: &FileEntry, expected: &Expected, content: Option<usize>) -> Finding {
        let Some(content) = content else {
            return match expected.size.filter(|size| *size != file.stat.size) {
                Some(size) => Finding::Damaged {
                    expected: format!("{size} bytes"),
                    found: format!("{} bytes", file.stat.size),
                    how: DamagedHow::Size,
                    place: None,
                },
                None => Finding::Uncheckable,
            };
        };
        match (self.ends[content].get(), self.contents[content].checked) {
            (Some(End::Read(hashes)), _) => {
                let hash = expected.hash.as_ref().and_then(|(kind, _)| hashes.by_kind.get(kind));
                of_read(expected, file.stat.size, hash, hashes.differs, self.plan.now)
            }
            (Some(End::Changed), _) => Finding::Changed(ChangedSince::Reading),
            (Some(End::Unreadable(why)), _) => Finding::Damaged {
                expected: expected.hash.as_ref().map(|(_, hash)| hash.clone()).unwrap_or_default(),
                found: why.clone(),
                how: DamagedHow::Unreadable,
                place: None,
            },
            // It is what an earlier run read, whose hashes are known.
            (None | Some(End::Stopped), Some(at)) => {
                let hash = expected.hash.as_ref().map(|(_, hash)| hash);
                match of_read(expected, file.stat.size, hash, None, at) {
                    Finding::Whole { at, .. } => Finding::Whole { at, now: false },
                    other => other,
                }
            }
            (None | Some(End::Stopped), None) => Finding::Unreached,
        }
    }

    /// Judges a model, once.
    fn finish(&self, at: usize) {
        let task = &self.tasks[at];
        let Some(looked) = &self.looked[at] else { return };
        self.outcomes[at].get_or_init(|| {
            let mut seen = HashSet::new();
            let rows: Vec<Row<'_>> = task
                .found
                .files
                .iter()
                .zip(&looked.files)
                .map(|(file, (expected, content))| Row {
                    path: &file.path,
                    size: file.stat.size,
                    again: !seen.insert((file.stat.dev, file.stat.ino)),
                    finding: self.finding(file, expected, *content),
                })
                .collect();
            let unreached = rows.iter().any(|row| row.finding == Finding::Unreached);
            let repo = looked.structure.observation.source.repo_id.clone().or_else(|| (self.plan.repo)(at));
            let about = About {
                structure: &looked.structure,
                gone: &looked.gone,
                origin: origin(task, &looked.structure, repo.as_deref()),
                now: self.plan.now,
                budget: self.plan.budget.is_some(),
            };
            let outcome = IntegrityOutcome {
                result: VerifiedModel {
                    model: task.model.clone(),
                    path: task.path.to_string_lossy().into_owned(),
                    store: task.store.clone(),
                    key: task.store.is_some().then(|| task.found.key.clone()),
                    verification: about.judge(&rows),
                },
                interrupted: unreached && self.observer.interrupted(),
            };
            self.observer.finished(at, &outcome);
            outcome
        });
    }

    fn summary(&self, seconds: f64) -> IntegritySummary {
        let mut all = IntegritySummary {
            seconds,
            read_bytes: self.done.load(Ordering::Relaxed),
            ..IntegritySummary::default()
        };
        let mut seen = HashSet::new();
        for (task, looked) in self.tasks.iter().zip(self.looked) {
            let Some(looked) = looked else { continue };
            for (file, (expected, content)) in task.found.files.iter().zip(&looked.files) {
                if !seen.insert((file.stat.dev, file.stat.ino)) {
                    continue;
                }
                all.files += 1;
                all.bytes += file.stat.size;
                let end = content.and_then(|content| self.ends[content].get());
                all.read_files += u64::from(matches!(end, Some(End::Read(_))));
                if let Finding::Whole { at, .. } = self.finding(file, expected, *content) {
                    all.whole_files += 1;
                    all.whole_bytes += file.stat.size;
                    all.oldest_check = Some(all.oldest_check.map_or(at, |oldest| oldest.min(at)));
                }
            }
        }
        all
    }
}

/// Where a model's files came from.
fn origin<'a>(task: &'a Task<'_>, structure: &'a Structure, repo: Option<&'a str>) -> Option<Origin<'a>> {
    if structure.observation.format == Format::Ollama {
        return Some(Origin::Ollama { tag: &task.found.name });
    }
    if let Some(snapshot) = &task.found.repo {
        let (repo, revision) = (snapshot.id.as_str(), snapshot.revision.as_str());
        return Some(Origin::Hub { repo, kind: snapshot.kind, revision, cache: task.scan.spec.root() });
    }
    let revision = structure.observation.source.revision.as_deref()?;
    Some(Origin::LocalDir { repo: repo?, revision, dir: &task.path })
}
