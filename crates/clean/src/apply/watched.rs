//! What a download would leave in a repo while something of that repo is taken away.
//!
//! huggingface_hub makes a snapshot's directory before it asks whether it has a blob, and takes no lock where it has
//! all: what was looked at before the stores were read and is not the same after a row was done says that somebody came
//! in between. Then the row is taken back.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use mlxman_store::{DirHandle, EntryKind};

use crate::plan::{ItemKind, Plan};
use crate::trash::{Action, Journal};

/// Deeper directories are in no repo.
const DEEPEST: u32 = 32;

/// What was in the repos of a plan before its store was read again.
#[derive(Debug, Default)]
pub struct Watched {
    repos: BTreeMap<String, Option<Marks>>,
}

/// Inode, time of last modification and size by path: of directories in `snapshots/`, and of files in `refs/`.
type Marks = BTreeMap<String, (u64, i64, u64)>;

impl Watched {
    /// Looks at the repos that a plan's rows of one store lie in.
    pub fn of(plan: &Plan, store: &str, root: &DirHandle) -> Self {
        let rows = plan.candidates.iter().filter(|row| row.store == store);
        let places = rows.flat_map(|row| [row.key.as_deref(), row.path.as_deref()]).flatten();
        let repos: BTreeSet<&str> = places.filter_map(repo_of).collect();
        Watched { repos: repos.into_iter().map(|repo| (repo.to_owned(), marks(root, repo).ok())).collect() }
    }

    /// Asks about the rows of a journal, which lie at these places.
    pub(super) fn settling<'a>(&'a self, root: &'a DirHandle, places: &[&'a str]) -> Settling<'a> {
        let repos: Vec<Option<&str>> = places.iter().map(|place| repo_of(place)).collect();
        let last = repos.iter().enumerate().filter_map(|(row, repo)| Some(((*repo)?, row))).collect();
        Settling {
            watched: self,
            root,
            repos,
            last,
            own: OnceCell::new(),
            asked: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    /// What is new or was changed in a repo, but by the journal's own steps.
    fn disturbed(&self, root: &DirHandle, repo: &str, own: Option<&HashSet<String>>) -> Option<String> {
        let unknown = || Some(format!("nobody can tell whether a download works on {repo}"));
        let Some(Some(before)) = self.repos.get(repo) else { return unknown() };
        let Ok(now) = marks(root, repo) else { return unknown() };
        let new = now.iter().find(|(path, mark)| {
            let is_own = own.is_some_and(|own| own.contains(*path));
            match before.get(*path) {
                // Its own directories and those that they lie in are changed by the row itself.
                Some(then) => then != *mark && !(is_own && then.0 == mark.0),
                None => true,
            }
        });
        new.map(|(path, _)| format!("a download came meanwhile: {path} is new or was changed"))
    }
}

/// Asked after each row, and of all rows again when all is done. A repo is looked at when the last of its rows is done,
/// and once at the end: it may have many.
pub(super) struct Settling<'a> {
    watched: &'a Watched,
    root: &'a DirHandle,
    /// The repo of each row.
    repos: Vec<Option<&'a str>>,
    /// The last row of each repo.
    last: HashMap<&'a str, usize>,
    /// What the journal's steps change themselves, by repo.
    own: OnceCell<HashMap<String, HashSet<String>>>,
    /// The rows that were asked about.
    asked: RefCell<HashSet<usize>>,
    /// What the look at the end said, by repo.
    ended: RefCell<HashMap<&'a str, Option<String>>>,
}

impl Settling<'_> {
    /// Why a row has to be taken back, if it has to be.
    pub(super) fn why(&self, row: usize, journal: &Journal) -> Option<String> {
        let repo = (*self.repos.get(row)?)?;
        let own = self.own.get_or_init(|| own_of(journal)).get(repo);
        let look = || self.watched.disturbed(self.root, repo, own);
        if self.asked.borrow_mut().insert(row) {
            return if self.last.get(repo) == Some(&row) { look() } else { None };
        }
        self.ended.borrow_mut().entry(repo).or_insert_with(look).clone()
    }
}

/// What a journal's steps change themselves, and the directories that those lie in, by repo.
fn own_of(journal: &Journal) -> HashMap<String, HashSet<String>> {
    let mut own: HashMap<String, HashSet<String>> = HashMap::new();
    for step in &journal.steps {
        for path in step.action.paths() {
            let Some(repo) = repo_of(path) else { continue };
            let own = own.entry(repo.to_owned()).or_default();
            own.insert(path.to_owned());
            if let Action::Take { .. } | Action::RemoveDir { .. } = step.action {
                own.extend(path.rfind('/').map(|at| path[..at].to_owned()));
            }
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
