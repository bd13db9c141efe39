//! One module a layout; nothing outside this folder knows how a store is laid out.

mod folder;
mod hub;

use crate::access::{DirHandle, Entry, EntryKind};
use crate::filesystem::Filesystem;
use crate::ledger::{LedgerBuilder, Users};
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind};
use crate::scan::{Scan, ScanError, Stray, StrayItem};
use crate::spec::{StoreKind, StoreSpec};
use crate::watch::Progress;

/// How one kind of store is read. LM Studio's and Ollama's get a module and a [`StoreKind`] each.
pub trait Layout: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> StoreKind;

    /// Walks the store once.
    ///
    /// # Errors
    /// Only when the root itself cannot be opened; whatever else cannot be read is a row in the scan.
    fn scan(&self, spec: &StoreSpec, progress: &Progress) -> Result<Scan, ScanError>;
}

/// The layout of a kind of store.
pub fn layout_of(kind: StoreKind) -> &'static dyn Layout {
    match kind {
        StoreKind::Hub => &hub::Hub,
        StoreKind::Folder => &folder::Folder,
    }
}

fn open(spec: &StoreSpec) -> Result<(DirHandle, Option<Filesystem>), ScanError> {
    let unavailable = |source| ScanError::Unavailable { root: spec.root().to_owned(), source };
    let root = DirHandle::open_root(spec.root()).map_err(unavailable)?;
    Ok((root, Filesystem::of(spec.root()).ok()))
}

/// What of a file's allocation is certainly its own. Asked only where files can share blocks; where the system does
/// not say, its allocation is taken for its own, as `du` does.
fn certain_of(asks: bool, dir: &DirHandle, entry: &Entry) -> u64 {
    let allocated = entry.stat.allocated;
    if !asks || allocated == 0 {
        return allocated;
    }
    match dir.open_file(&entry.raw_name) {
        Ok(file) => crate::extents::private_bytes(&file, allocated).unwrap_or(allocated),
        // Nobody can tell what it shares.
        Err(_) => 0,
    }
}

/// Directories deeper than this are not entered: no program nests stores so, and each level keeps a directory open.
const DEEPEST: u32 = 64;

/// Counts an entry and everything below it, links not followed, on behalf of `users`. What cannot be read becomes a
/// row of its own. `items` gets every entry, deepest first; `path` is the entry's place in the store.
fn count_all(
    dir: &DirHandle,
    entry: &Entry,
    path: &str,
    users: &Users,
    book: &mut LedgerBuilder,
    found: &mut Counted<'_>,
) {
    count_below(dir, entry, path, users, book, found, 0);
}

/// What [`count_all`] finds beside bytes.
struct Counted<'a> {
    strays: &'a mut Vec<Stray>,
    items: Option<&'a mut Vec<StrayItem>>,
}

fn count_below(
    dir: &DirHandle,
    entry: &Entry,
    path: &str,
    users: &Users,
    book: &mut LedgerBuilder,
    found: &mut Counted<'_>,
    depth: u32,
) {
    let stat = &entry.stat;
    book.add(stat, stat.allocated, users.clone());
    let mut unread = |why: String| {
        let message = format!("{why}; what lies in it was not counted");
        let problem = Problem::new(ProblemKind::Unreadable, Some(path), message);
        found.strays.push(Stray { problem, repo_id: None, owner: None, items: Vec::new(), payload: None });
    };
    match stat.kind {
        EntryKind::Unknown => {
            unread("the system does not say what this is; check its permissions".to_owned());
        }
        EntryKind::Dir if depth >= DEEPEST => {
            unread(format!("it is nested deeper than {DEEPEST} directories"));
        }
        EntryKind::Dir => match dir.open_dir(&entry.raw_name).and_then(|below| Ok((below.list()?, below))) {
            Ok((entries, below)) => {
                for entry in entries {
                    let path = format!("{path}/{}", entry.lossy_name());
                    count_below(&below, &entry, &path, users, book, found, depth + 1);
                }
            }
            Err(error) => unread(format!("this directory cannot be read: {error}; check its permissions")),
        },
        // What was thrown away needs nothing, and its links lead nowhere from where it lies now.
        EntryKind::Link if path.starts_with(crate::TRASH) => {}
        EntryKind::Link => {
            let base = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            book.links.push(LooseLink::new(base, dir.read_link_raw(&entry.raw_name)));
        }
        _ => {}
    }
    // A name that is not UTF-8 cannot be told: what stands for it is the name of nothing.
    if let Some(items) = found.items.as_deref_mut().filter(|_| !path.contains(char::REPLACEMENT_CHARACTER)) {
        let link_target =
            (stat.kind == EntryKind::Link).then(|| dir.read_link(&entry.raw_name).ok()).flatten();
        items.push(StrayItem { path: path.to_owned(), stat: *stat, link_target });
    }
}

/// What the system's file managers leave in any directory; it goes with what it lies in.
fn is_desktop_noise(name: &str) -> bool {
    name == ".DS_Store" || name.starts_with("._")
}
