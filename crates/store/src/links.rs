//! Links that lead to what is not their own: where each of them ends, and what it passes on the way there.
//!
//! Only the kernel knows where a link ends: `..` behind a link leaves the directory that the link leads to, and a mount
//! gives one directory two names. So every part of the way is looked at, and each place on it is told by its device
//! and inode, and by where it lies in every store that is above it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::watch::{Progress, watch};

/// A link that is not a snapshot's own link to its own blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseLink {
    /// The directory that it lies in, relative to the store's root.
    pub dir: String,
    /// Its text; `None` where it cannot be read, or where the names above it cannot be told.
    pub target: Option<OsString>,
}

impl LooseLink {
    pub(crate) fn new(dir: &str, target: std::io::Result<OsString>) -> Self {
        // What stands for a name that is not UTF-8 is no name: a link below it is only known if it starts at the top.
        let lossy = dir.contains(char::REPLACEMENT_CHARACTER);
        let target = target.ok().filter(|target| !lossy || Path::new(target).is_absolute());
        LooseLink { dir: dir.to_owned(), target }
    }
}

/// Device and inode.
pub type FileId = (u64, u64);

/// A place that a link passes or ends at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waypoint {
    /// What lies there, where anything does.
    pub id: Option<FileId>,
    /// Where it lies in the stores that were asked about: the store's place among them, and the path below its root,
    /// empty for the root.
    pub places: Vec<(usize, String)>,
}

/// Where a link lies, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where the directory that it lies in lies, in each store that was asked about.
    pub from: Vec<(usize, String)>,
    /// The links on the way, and the end.
    pub passed: Vec<Waypoint>,
}

/// Links of one store.
#[derive(Debug, Clone)]
pub struct StoreLinks {
    /// The store's root.
    pub root: PathBuf,
    /// Its links.
    pub links: Vec<LooseLink>,
}

/// How often a store's links are taken up again behind one that does not answer.
const ROUNDS: usize = 4;
/// A kernel follows no more links than this for one path.
const HOPS: u32 = 40;

/// Follows the links of several stores at once, and tells of each the places on its way that lie in `stores`, which are
/// told by device and inode of their roots. `None` for a link that could not be followed in time: one that leads to a
/// volume that does not answer for `limit` is given up, and those behind it are followed all the same.
pub fn follow(links: Vec<StoreLinks>, stores: &[FileId], limit: Duration) -> Vec<Vec<Option<Way>>> {
    let mut roots: HashMap<FileId, Vec<usize>> = HashMap::new();
    for (index, id) in stores.iter().enumerate() {
        roots.entry(*id).or_default().push(index);
    }
    let roots = Arc::new(roots);
    let links: Vec<Arc<StoreLinks>> = links.into_iter().map(Arc::new).collect();
    let mut found: Vec<Vec<Option<Way>>> = links.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        let due: Vec<usize> =
            (0..links.len()).filter(|&store| found[store].len() < links[store].links.len()).collect();
        let jobs: Vec<Job> = due
            .iter()
            .map(|&store| Job {
                links: Arc::clone(&links[store]),
                from: found[store].len(),
                found: Arc::default(),
            })
            .collect();
        if jobs.is_empty() {
            break;
        }
        let answers: Vec<Found> = jobs.iter().map(|job| Arc::clone(&job.found)).collect();
        let roots = Arc::clone(&roots);
        let done = watch(jobs, limit, move |job: Job, progress| job.run(&roots, progress));
        for ((store, answer), done) in due.into_iter().zip(answers).zip(done) {
            found[store].append(&mut answer.lock().unwrap_or_else(PoisonError::into_inner));
            // The next one is the one that does not answer.
            if done.is_err() && found[store].len() < links[store].links.len() {
                found[store].push(None);
            }
        }
    }
    for (store, found) in links.iter().zip(&mut found) {
        found.resize(store.links.len(), None);
    }
    found
}

type Found = Arc<Mutex<Vec<Option<Way>>>>;

/// A store's links, from one on.
struct Job {
    links: Arc<StoreLinks>,
    from: usize,
    found: Found,
}

impl Job {
    fn run(self, roots: &HashMap<FileId, Vec<usize>>, progress: &Progress) {
        let mut walker = Walker { roots, known: HashMap::new(), places: HashMap::new() };
        for link in &self.links.links[self.from..] {
            let dir = crate::scan::join(&self.links.root, &link.dir);
            let way = link
                .target
                .as_deref()
                .map(|target| Way { from: walker.places(&dir).to_vec(), passed: walker.follow(dir, target) });
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(way);
            progress.step(1);
        }
    }
}

/// What lies at a path of which every part above is a directory.
#[derive(Clone)]
enum Step {
    Dir(FileId),
    Link(FileId, PathBuf),
    Other(FileId),
    /// Nothing, or nothing that this user may see: then none of this user's programs can follow the link either.
    Nothing,
}

struct Walker<'a> {
    roots: &'a HashMap<FileId, Vec<usize>>,
    known: HashMap<PathBuf, Step>,
    /// Of directories.
    places: HashMap<PathBuf, Rc<[(usize, String)]>>,
}

impl Walker<'_> {
    fn step(&mut self, path: &Path) -> Step {
        if let Some(step) = self.known.get(path) {
            return step.clone();
        }
        let step = match fs_err::symlink_metadata(path) {
            Ok(meta) => {
                let id = (meta.dev(), meta.ino());
                if meta.is_dir() {
                    Step::Dir(id)
                } else if meta.is_symlink() {
                    fs_err::read_link(path).map_or(Step::Other(id), |target| Step::Link(id, target))
                } else {
                    Step::Other(id)
                }
            }
            Err(_) => Step::Nothing,
        };
        // Many links lead to one directory, and few to one file.
        if matches!(step, Step::Dir(_) | Step::Link(..)) {
            self.known.insert(path.to_owned(), step.clone());
        }
        step
    }

    /// Where the directory `dir`, on the way to which there is no link, lies in the stores.
    fn places(&mut self, dir: &Path) -> Rc<[(usize, String)]> {
        if let Some(places) = self.places.get(dir) {
            return Rc::clone(places);
        }
        let mut places = match (dir.parent(), dir.file_name()) {
            (Some(parent), Some(name)) => below(&self.places(parent), Path::new(name)),
            _ => Vec::new(),
        };
        if let Step::Dir(id) = self.step(dir) {
            places.extend(self.roots.get(&id).into_iter().flatten().map(|&store| (store, String::new())));
        }
        let places: Rc<[(usize, String)]> = places.into();
        self.places.insert(dir.to_owned(), Rc::clone(&places));
        places
    }

    /// What lies at `path` below the directory `dir`.
    fn waypoint(&mut self, dir: &Path, path: &Path, id: Option<FileId>) -> Waypoint {
        Waypoint { id, places: below(&self.places(dir), path) }
    }

    /// Every link on the way of a link in `dir`, in which there is none, and its end.
    fn follow(&mut self, dir: PathBuf, target: &OsStr) -> Vec<Waypoint> {
        let mut passed = Vec::new();
        let mut here = dir;
        // What is still to go, the next part last.
        let mut parts: Vec<OsString> = Vec::new();
        let push = |here: &mut PathBuf, parts: &mut Vec<OsString>, target: &Path| {
            if target.is_absolute() {
                *here = PathBuf::from("/");
            }
            let those = target
                .components()
                .rev()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
            parts.extend(those.map(|part| part.as_os_str().to_owned()));
        };
        push(&mut here, &mut parts, Path::new(target));
        let mut hops = 0;
        while let Some(part) = parts.pop() {
            if part == ".." {
                here.pop();
                continue;
            }
            let path = here.join(&part);
            match self.step(&path) {
                Step::Dir(_) => here = path,
                Step::Link(id, target) => {
                    passed.push(self.waypoint(&here, Path::new(&part), Some(id)));
                    hops += 1;
                    if hops > HOPS {
                        return passed;
                    }
                    push(&mut here, &mut parts, &target);
                }
                Step::Other(id) => {
                    passed.push(self.waypoint(&here, Path::new(&part), Some(id)));
                    return passed;
                }
                Step::Nothing => {
                    // By its text: it may be there tomorrow.
                    let rest = parts.iter().rev().filter(|part| *part != "..");
                    let rest: PathBuf = std::iter::once(&part).chain(rest).collect();
                    passed.push(self.waypoint(&here, &rest, None));
                    return passed;
                }
            }
        }
        let id = match self.step(&here) {
            Step::Dir(id) => Some(id),
            _ => None,
        };
        passed.push(Waypoint { id, places: self.places(&here).to_vec() });
        passed
    }
}

/// Places of what lies at `path` below a directory.
fn below(dir: &[(usize, String)], path: &Path) -> Vec<(usize, String)> {
    let path = path.to_string_lossy();
    let join = |dir: &str| if dir.is_empty() { path.to_string() } else { format!("{dir}/{path}") };
    dir.iter().map(|(store, dir)| (*store, join(dir))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err::os::unix::fs::symlink;

    fn id_of(path: &Path) -> FileId {
        let meta = fs_err::symlink_metadata(path).unwrap();
        (meta.dev(), meta.ino())
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let at = |path: &str| top.join(path);
        fs_err::create_dir_all(at("s/b/refs/x")).unwrap();
        fs_err::create_dir_all(at("s/b/blobs")).unwrap();
        fs_err::create_dir_all(at("s/a")).unwrap();
        fs_err::write(at("s/b/blobs/y"), "y").unwrap();
        symlink("../b/refs/x", at("s/a/d")).unwrap();
        symlink(at("s/a/l2"), at("hop")).unwrap();
        symlink("d/../../blobs/y", at("s/a/l2")).unwrap();
        symlink("l1", at("s/a/l1")).unwrap();
        let link = |target: &str| LooseLink::new("a", Ok(target.into()));
        let links =
            ["d/../../blobs/y", "../../hop", "../b/blobs/no/more", "l1", "/", ".."].map(link).to_vec();
        let unknown = LooseLink::new("a/\u{fffd}", Ok("x".into()));
        let links = StoreLinks { root: at("s"), links: links.into_iter().chain([unknown]).collect() };
        let found = follow(vec![links], &[id_of(&at("s"))], Duration::from_secs(60)).remove(0);
        let ends = |index: usize| -> Vec<&str> {
            let way = found[index].as_ref().unwrap();
            assert_eq!(way.from, [(0, "a".to_owned())]);
            way.passed.iter().flat_map(|way| &way.places).map(|(_, path)| path.as_str()).collect()
        };
        assert_eq!(ends(0), ["a/d", "b/blobs/y"], "`..` leaves what the link leads to");
        assert_eq!(found[0].as_ref().unwrap().passed[1].id, Some(id_of(&at("s/b/blobs/y"))));
        assert_eq!(ends(1), ["a/l2", "a/d", "b/blobs/y"], "through a link outside");
        assert_eq!(ends(2), ["b/blobs/no/more"], "what is not there has a place all the same");
        assert_eq!(ends(3).len(), 41, "one that goes round ends");
        assert_eq!(ends(4), [""; 0]);
        assert_eq!(ends(5), [""], "the root");
        assert_eq!(found[6], None);
    }
}
