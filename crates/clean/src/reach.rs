//! Where the links of all known stores lead: what one of them passes or ends at is needed by whoever has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use mlxman_store::{FileId, Scan, StoreLinks, Way, follow};

/// How long a link's end is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What links lead to.
#[derive(Default)]
pub(crate) struct Reach {
    links: Vec<Source>,
    by_id: HashMap<FileId, Vec<usize>>,
    /// Of each store that the plan is about: by path below its root.
    inside: Vec<BTreeMap<String, Vec<usize>>>,
    /// Stores with a link that could not be followed.
    pub(crate) unanswered: Vec<String>,
    /// Directories that were asked for.
    dirs: RefCell<HashMap<(usize, String), Option<FileId>>>,
}

/// Who has a link.
struct Source {
    store: String,
    /// Where it lies in the stores that the plan is about.
    from: Vec<(usize, String)>,
}

/// What a candidate consists of.
#[derive(Default)]
pub(crate) struct Area<'a> {
    /// The store, by its place in the survey.
    pub(crate) store: usize,
    /// The directory that is its own: what leads to anything in it leads to the candidate, and links in it are its own.
    pub(crate) dir: Option<&'a str>,
    /// Files that go with it.
    pub(crate) files: Vec<&'a str>,
    /// Device and inode of all that goes with it.
    pub(crate) ids: Vec<FileId>,
    /// The repo: its refs and listings go with the last of it.
    pub(crate) repo: Option<&'a str>,
}

impl Reach {
    /// Follows the links of `linking` stores as far as they matter to the `asked` ones.
    pub(crate) fn of(asked: &[Option<&Scan>], linking: &[&Scan]) -> Self {
        let roots: Vec<FileId> = asked
            .iter()
            .map(|scan| {
                scan.and_then(|scan| scan.root().stat().ok()).map_or((0, 0), |stat| (stat.dev, stat.ino))
            })
            .collect();
        let links: Vec<StoreLinks> = linking
            .iter()
            .map(|scan| StoreLinks {
                root: scan.spec.root().to_owned(),
                links: scan.links().cloned().collect(),
            })
            .collect();
        let mut reach = Reach { inside: vec![BTreeMap::new(); asked.len()], ..Reach::default() };
        if links.iter().all(|store| store.links.is_empty()) {
            return reach;
        }
        for (scan, ways) in linking.iter().zip(follow(links, &roots, PATIENCE)) {
            let store = scan.spec.id();
            if ways.iter().any(Option::is_none) {
                reach.unanswered.push(store.clone());
            }
            ways.into_iter().flatten().for_each(|way| reach.add(&store, way));
        }
        reach
    }

    fn add(&mut self, store: &str, way: Way) {
        let index = self.links.len();
        for place in way.passed {
            if let Some(id) = place.id {
                self.by_id.entry(id).or_default().push(index);
            }
            for (store, path) in place.places {
                self.inside[store].entry(path).or_default().push(index);
            }
        }
        self.links.push(Source { store: store.to_owned(), from: way.from });
    }

    /// The store of a link that is not the candidate's own and leads to it: to it, into it, or to a directory that it
    /// lies in. A link to a store's root, or above it, names the store and nothing in it.
    pub(crate) fn leads_to(&self, area: &Area<'_>, scan: &Scan) -> Option<&str> {
        if self.links.is_empty() {
            return None;
        }
        let inside = &self.inside[area.store];
        let of_another = |links: &Vec<usize>| {
            let own = |source: &Source| {
                let mut from = source.from.iter().filter(|(store, _)| *store == area.store);
                area.dir.is_some_and(|dir| from.any(|(_, at)| is_within(at, dir)))
            };
            links.iter().map(|&link| &self.links[link]).find(|source| !own(source))
        };
        let at = |path: &str| inside.get(path).and_then(of_another);
        let below = |dir: &str| {
            let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
            let from = inside.range(prefix.clone()..);
            from.take_while(|(path, _)| path.starts_with(&prefix)).find_map(|(_, links)| of_another(links))
        };
        let with_id = |id: &FileId| self.by_id.get(id).and_then(of_another);
        let above: HashSet<&str> =
            area.dir.iter().chain(&area.files).flat_map(|path| parents(path)).collect();
        let found = area.dir.and_then(|dir| at(dir).or_else(|| below(dir)));
        let found = found.or_else(|| area.files.iter().find_map(|file| at(file)));
        let found = found.or_else(|| area.ids.iter().find_map(with_id));
        let found = found.or_else(|| above.iter().find_map(|dir| at(dir)));
        // By another name of it, through a mount.
        let found = found.or_else(|| {
            above.iter().find_map(|dir| self.id_of(area.store, dir, scan).as_ref().and_then(with_id))
        });
        let found = found.or_else(|| {
            let repo = format!("{}/", area.repo?);
            let rest = inside.range(repo.clone()..).take_while(|(path, _)| path.starts_with(&repo));
            rest.filter(|(path, _)| {
                let part = path[repo.len()..].split('/').next().unwrap_or_default();
                !matches!(part, "blobs" | "snapshots")
            })
            .find_map(|(_, links)| of_another(links))
        });
        found.map(|source| source.store.as_str())
    }

    fn id_of(&self, store: usize, dir: &str, scan: &Scan) -> Option<FileId> {
        let mut dirs = self.dirs.borrow_mut();
        *dirs
            .entry((store, dir.to_owned()))
            .or_insert_with(|| scan.root().stat_below(dir).ok().map(|stat| (stat.dev, stat.ino)))
    }
}

/// The directories that `path` lies in, without the root.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
