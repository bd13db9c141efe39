//! What a download would leave in a repo while something of that repo is taken away.
//!
//! huggingface_hub makes a snapshot's directory before it asks whether it has a blob, and takes no lock where it has
//! all: what was looked at before the stores were read and is not the same after a row was done says that somebody came
//! in between. Then the row is taken back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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

    /// Why a row that was just done has to be taken back, if it has to be.
    pub(crate) fn disturbed(&self, root: &DirHandle, place: &str, journal: &Journal) -> Option<String> {
        let repo = repo_of(place)?;
        let unknown = || Some(format!("nobody can tell whether a download works on {repo}"));
        let Some(Some(before)) = self.repos.get(repo) else { return unknown() };
        let Ok(now) = marks(root, repo) else { return unknown() };
        let own = own_of(journal, repo);
        let new = now.iter().find(|(path, mark)| {
            let is_own = own.contains(path.as_str());
            match before.get(*path) {
                // Its own directories and those that they lie in are changed by the row itself.
                Some(then) => then != *mark && !(is_own && then.0 == mark.0),
                None => true,
            }
        });
        new.map(|(path, _)| format!("a download came meanwhile: {path} is new or was changed"))
    }
}

/// What a journal's steps change themselves, and the directories that those lie in.
fn own_of<'a>(journal: &'a Journal, repo: &str) -> HashSet<&'a str> {
    let mut own = HashSet::new();
    for step in &journal.steps {
        for path in step.action.paths() {
            if repo_of(path) != Some(repo) {
                continue;
            }
            own.insert(path);
            if let Action::Take { .. } | Action::RemoveDir { .. } = step.action {
                own.extend(path.rfind('/').map(|at| &path[..at]));
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
