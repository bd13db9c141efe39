//! What a download would leave in a repo while something of that repo is taken away.
//!
//! huggingface_hub makes a snapshot's directory before it asks whether it has a blob, and takes no lock where it has
//! all: what was looked at before the stores were read and is not the same after a row was done says that somebody came
//! in between. Then the row is taken back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use chrono::{DateTime, TimeDelta, Utc};
use mlxman_store::{DirHandle, EntryKind};

use crate::plan::{ItemKind, Plan};
use crate::trash::{Action, Journal};

/// Deeper directories are in no repo.
const DEEPEST: u32 = 32;

/// A repo that was written to so short ago may be in a download's hands between two files, when it holds no lock.
pub(crate) const QUIET: TimeDelta = TimeDelta::seconds(60);

/// Why what lies in a repo is left alone for now, where `dir`, a snapshot that stays, was written to a moment ago.
pub(crate) fn just_written(dir: &str) -> String {
    format!("{dir} was written to less than a minute ago, and a download may go on with it: wait a minute")
}

/// What was in the repos of a plan before its store was read again.
#[derive(Debug, Default)]
pub struct Watched {
    repos: BTreeMap<String, Option<Marks>>,
    /// Repos with a snapshot that stays and was written to a moment ago, with its directory.
    restless: BTreeMap<String, String>,
}

/// Inode, time of last modification and size by path: of directories in `snapshots/`, and of files in `refs/`.
type Marks = BTreeMap<String, (u64, i64, u64)>;

impl Watched {
    /// Looks at the repos that a plan's rows of one store lie in.
    pub fn of(plan: &Plan, store: &str, root: &DirHandle, now: DateTime<Utc>) -> Self {
        let rows = || plan.candidates.iter().filter(|row| row.store == store);
        let places = rows().flat_map(|row| [row.key.as_deref(), row.path.as_deref()]).flatten();
        let repos: BTreeSet<&str> = places.filter_map(repo_of).collect();
        let going: Vec<&str> = rows().filter_map(|row| row.key.as_deref()).collect();
        let mut watched = Watched::default();
        for repo in repos {
            let marks = marks(root, repo).ok();
            let stays = |path: &str| {
                path.split('/').count() > 2 && !going.iter().any(|key| super::is_within(path, key))
            };
            let is_new = |mtime_ns| (now - DateTime::from_timestamp_nanos(mtime_ns)).abs() < QUIET;
            let fresh = marks
                .iter()
                .flatten()
                .find(|(path, (_, mtime, _))| path.contains("/snapshots/") && stays(path) && is_new(*mtime));
            watched.restless.extend(fresh.map(|(path, _)| (repo.to_owned(), path.clone())));
            watched.repos.insert(repo.to_owned(), marks);
        }
        watched
    }

    /// Why a row is not done now.
    pub(super) fn restless(&self, place: &str) -> Option<String> {
        let dir = self.restless.get(repo_of(place)?)?;
        Some(just_written(dir))
    }

    /// Why a row at a place has to be taken back, if it has to be.
    pub(crate) fn disturbed_at(&self, root: &DirHandle, place: &str, own: &Own<'_>) -> Option<String> {
        self.disturbed(root, repo_of(place)?, own)
    }

    /// Asks about rows that lie at these places, of a journal that changes `own` itself.
    pub(super) fn settling<'a>(
        &'a self,
        root: &'a DirHandle,
        places: &[&'a str],
        own: &'a Own<'a>,
    ) -> Settling<'a> {
        let repos: Vec<Option<&str>> = places.iter().map(|place| repo_of(place)).collect();
        let last = repos.iter().enumerate().filter_map(|(row, repo)| Some(((*repo)?, row))).collect();
        let (asked, ended) = Default::default();
        Settling { watched: self, root, repos, last, own, asked, ended }
    }

    /// What is new in a repo, or was changed, but by the journal's own steps.
    fn disturbed(&self, root: &DirHandle, repo: &str, own: &Own<'_>) -> Option<String> {
        let unknown = || Some(format!("nobody can tell whether a download works on {repo}"));
        let Some(Some(before)) = self.repos.get(repo) else { return unknown() };
        let Ok(now) = marks(root, repo) else { return unknown() };
        let others = || now.iter().filter(|(path, _)| !own.made.contains(path.as_str()));
        let new = others().find(|(path, mark)| {
            let is_own = own.changed.contains(path.as_str());
            match before.get(*path) {
                // Its own directories and those that they lie in are changed by the row itself.
                Some(then) => then != *mark && !(is_own && then.0 == mark.0),
                None => true,
            }
        });
        new.map(|(path, _)| format!("a download came meanwhile: {path} is new or was changed"))
    }
}

/// Is asked about each row when it is done, and about all of them again when all is done. A repo, which may have many
/// rows, is looked at with the last of them, and once at the end.
pub(super) struct Settling<'a> {
    watched: &'a Watched,
    root: &'a DirHandle,
    /// The repo of each row.
    repos: Vec<Option<&'a str>>,
    /// The last row of each repo.
    last: HashMap<&'a str, usize>,
    own: &'a Own<'a>,
    /// The rows that were asked about before.
    asked: RefCell<HashSet<usize>>,
    /// What the look at the end said, by repo.
    ended: RefCell<HashMap<&'a str, Option<String>>>,
}

impl Settling<'_> {
    /// Why a row has to be taken back, if it has to be.
    pub(super) fn why(&self, row: usize) -> Option<String> {
        let repo = (*self.repos.get(row)?)?;
        let look = || self.watched.disturbed(self.root, repo, self.own);
        if self.asked.borrow_mut().insert(row) {
            return if self.last.get(repo) == Some(&row) { look() } else { None };
        }
        self.ended.borrow_mut().entry(repo).or_insert_with(look).clone()
    }
}

/// What a journal's steps change themselves.
#[derive(Debug, Default)]
pub(crate) struct Own<'a> {
    /// What they move, and the directories that it lies in.
    changed: HashSet<&'a str>,
    /// What they put in place.
    made: HashSet<&'a str>,
}

/// What a journal's steps change themselves.
pub(crate) fn own_of(journal: &Journal) -> Own<'_> {
    let mut own = Own::default();
    for step in &journal.steps {
        for path in step.action.paths() {
            own.changed.insert(path);
            match step.action {
                Action::Put { .. } | Action::MakeDir { .. } => {
                    own.made.insert(path);
                }
                Action::List { .. } | Action::Unlist { .. } => continue,
                _ => {}
            }
            own.changed.extend(path.rfind('/').map(|at| &path[..at]));
        }
    }
    own
}

/// The repo's directory that a path of a hub cache lies in.
fn repo_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix(".locks/").unwrap_or(path);
    path.split('/').next().filter(|name| name.contains("--"))
}

fn marks(root: &DirHandle, repo: &str) -> io::Result<Marks> {
    let mut marks = Marks::new();
    let absent = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    absent(walk(root, &format!("{repo}/snapshots"), ItemKind::Dir, &mut marks, 0))?;
    absent(walk(root, &format!("{repo}/refs"), ItemKind::File, &mut marks, 0))?;
    Ok(marks)
}

fn walk(root: &DirHandle, path: &str, of: ItemKind, marks: &mut Marks, depth: u32) -> io::Result<()> {
    if depth > DEEPEST {
        return Ok(());
    }
    let dir = root.open_dir_below(path)?;
    let stat = dir.stat()?;
    // Directories in `refs/` change when a ref goes with its snapshot, and hold nothing else.
    if of == ItemKind::Dir {
        marks.insert(path.to_owned(), (stat.ino, stat.mtime_ns, 0));
    }
    for entry in dir.list()? {
        let path = format!("{path}/{}", entry.lossy_name());
        match entry.stat.kind {
            EntryKind::Dir => match walk(root, &path, of, marks, depth + 1) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            },
            _ if of == ItemKind::File => {
                marks.insert(path, (entry.stat.ino, entry.stat.mtime_ns, entry.stat.size));
            }
            _ => {}
        }
    }
    Ok(())
}
