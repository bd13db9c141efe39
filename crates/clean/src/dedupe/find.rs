//! Finding equal files: by size, then by head and tail, then by the hash of the whole.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{Hashes, StoreProblem, store_problem};
use mlxman_store::{
    FileEntry, FoundModel, Held, OpenFiles, ProblemKind, Scan, ScanError, Stat, StoreKind, StoreSpec,
    same_attributes, same_blocks,
};

use super::cache::HashCache;
use super::read::{Unread, ends, has_no_middle, whole};
use super::{
    DUPLICATES_VERSION, DuplicateCopy, DuplicateGroup, Duplicates, EqualFile, How, LeftFile, NAMED_ELSEWHERE,
    NAMED_IN_SEVERAL,
};

/// What is to be found, and with what help.
pub struct Finding<'a> {
    /// The stores, walked just now.
    pub stores: &'a [(StoreSpec, Result<Scan, ScanError>)],
    /// Files of fewer bytes are left alone.
    pub min_size: u64,
    /// Whether equal files are to become one with several names; else they share their blocks.
    pub hard_link: bool,
    /// The user whose files may be touched; 0 may touch all.
    pub user: u32,
    /// What syncs know.
    pub hashes: &'a Hashes,
    /// Is told how many bytes of how many were read, and of which file, and says whether to go on.
    pub step: &'a (dyn Fn(u64, u64, &str) -> bool + Sync),
    /// The time.
    pub now: DateTime<Utc>,
}

/// One file of the stores.
struct Inode<'a> {
    /// The store whose entry this is, by its place.
    store: usize,
    scan: &'a Scan,
    entry: &'a FileEntry,
    names: BTreeSet<(usize, &'a str)>,
    models: BTreeSet<&'a str>,
    what: String,
}

impl Inode<'_> {
    fn stat(&self) -> &Stat {
        &self.entry.stat
    }

    fn open(&self) -> io::Result<File> {
        self.scan.open(self.entry)
    }
}

/// Looks for equal files in stores; nothing is touched. What was hashed is put into `cache`.
pub fn find_duplicates(finding: &Finding<'_>, cache: &mut HashCache) -> Duplicates {
    let mut found = Duplicates {
        schema_version: DUPLICATES_VERSION,
        created_at: finding.now,
        stores: finding.stores.iter().map(|(spec, _)| spec.id()).collect(),
        min_size_bytes: finding.min_size,
        groups: Vec::new(),
        left: Vec::new(),
        saves_bytes: 0,
        saves_at_least: false,
        expected_bytes: 0,
        hashed_files: 0,
        hashed_bytes: 0,
        interrupted: false,
        problems: Vec::new(),
    };
    for (spec, scan) in finding.stores {
        if let Err(error) = scan {
            let problem = error.problem();
            found.problems.push(store_problem(spec, problem.kind, &problem.message));
        }
    }
    let mut inodes = inodes(finding);
    cache.retain(&inodes.iter().map(|one| (one.stat().dev, one.stat().ino)).collect());
    inodes.retain(|one| one.stat().size >= finding.min_size.max(1));
    let by_size = groups_by(inodes.into_iter().map(|one| (one.stat().size, one)));
    let candidates = guarded(by_size, finding, &mut found);
    let candidates = by_ends(candidates, finding, cache, &mut found);
    let groups = by_hash(candidates, finding, cache, &mut found);
    for (hash, group) in groups {
        settle(finding, &hash, group, &mut found);
    }
    let order = |group: &DuplicateGroup| (std::cmp::Reverse(group.saves_bytes), group.keeps.path.clone());
    found.groups.sort_by_cached_key(order);
    found.left.sort_by(|a, b| (&a.store, &a.path).cmp(&(&b.store, &b.path)));
    let copies = || found.groups.iter().flat_map(|group| &group.copies);
    found.saves_bytes = copies().map(|copy| copy.saves_bytes).sum();
    found.saves_at_least = copies().any(|copy| copy.saves_at_least);
    found.expected_bytes = copies().filter(|copy| !copy.certain).map(|copy| copy.saves_bytes).sum();
    found
}

/// The regular files that models consist of, each once.
fn inodes<'a>(finding: &Finding<'a>) -> Vec<Inode<'a>> {
    let mut by_id: HashMap<(u64, u64), Inode<'a>> = HashMap::new();
    for (store, (_, scan)) in finding.stores.iter().enumerate() {
        let Ok(scan) = scan else { continue };
        for (model, entry) in
            scan.models.iter().flat_map(|model| model.files.iter().map(move |file| (model, file)))
        {
            let one = by_id.entry((entry.stat.dev, entry.stat.ino)).or_insert_with(|| Inode {
                store,
                scan,
                entry,
                names: BTreeSet::new(),
                models: BTreeSet::new(),
                what: what(model, entry),
            });
            one.names.insert((store, &entry.real));
            one.models.insert(&model.name);
        }
    }
    let mut inodes: Vec<Inode<'a>> = by_id.into_values().collect();
    inodes.sort_by(|a, b| (a.store, &a.entry.real).cmp(&(b.store, &b.entry.real)));
    inodes
}

fn what(model: &FoundModel, entry: &FileEntry) -> String {
    if model.is_file { model.name.clone() } else { format!("{}/{}", model.name, entry.path) }
}

/// Groups of two and more.
fn groups_by<'a, K: Ord>(inodes: impl Iterator<Item = (K, Inode<'a>)>) -> BTreeMap<K, Vec<Inode<'a>>> {
    let mut groups: BTreeMap<K, Vec<Inode<'a>>> = BTreeMap::new();
    for (key, one) in inodes {
        groups.entry(key).or_default().push(one);
    }
    groups.retain(|_, group| group.len() > 1);
    groups
}

/// Takes out what somebody works with just now.
fn guarded<'a>(
    by_size: BTreeMap<u64, Vec<Inode<'a>>>,
    finding: &Finding<'_>,
    found: &mut Duplicates,
) -> Vec<Inode<'a>> {
    if by_size.is_empty() {
        return Vec::new();
    }
    let open = OpenFiles::now();
    let mut repos: HashMap<(usize, &'a str), Held> = HashMap::new();
    let mut free = Vec::new();
    for one in by_size.into_values().flatten() {
        let mut held = Held::No;
        for (store, path) in &one.names {
            let Some((_, Ok(scan))) =
                finding.stores.get(*store).filter(|(spec, _)| spec.kind() == StoreKind::Hub)
            else {
                continue;
            };
            let repo = path.split('/').next().unwrap_or_default();
            held = held.max(match repo {
                "blobs" => scan.lock_beside(path),
                repo => *repos.entry((*store, repo)).or_insert_with(|| scan.lock_of_repo(repo)),
            });
        }
        let reason = match held {
            _ if open.has(one.stat().dev, one.stat().ino) => "a running program has it open",
            Held::No => {
                free.push(one);
                continue;
            }
            Held::Yes => "a download works on its repo",
            Held::Unknown => "its lock cannot be asked, so nobody can tell whether a download works on it",
        };
        leave(finding, &one, reason, found);
    }
    free
}

fn by_ends<'a>(
    candidates: Vec<Inode<'a>>,
    finding: &Finding<'_>,
    cache: &HashCache,
    found: &mut Duplicates,
) -> Vec<Inode<'a>> {
    let mut kept = Vec::new();
    let mut asked = Vec::new();
    for group in groups_by(candidates.into_iter().map(|one| (one.stat().size, one))).into_values() {
        let is_known = group.iter().all(|one| known(finding, cache, one.stat()).is_some());
        if is_known || has_no_middle(group[0].stat().size) { kept.extend(group) } else { asked.extend(group) }
    }
    let stats: Vec<Stat> = asked.iter().map(|one| *one.stat()).collect();
    let ends = ends(&stats, &|at| asked[at].open());
    let mut equal = Vec::new();
    for (one, end) in asked.into_iter().zip(ends) {
        match end {
            Ok(end) => equal.push(((one.stat().size, end), one)),
            Err(why) => unread(finding, &one, &why, found),
        }
    }
    kept.extend(groups_by(equal.into_iter()).into_values().flatten());
    kept
}

fn by_hash<'a>(
    candidates: Vec<Inode<'a>>,
    finding: &Finding<'_>,
    cache: &mut HashCache,
    found: &mut Duplicates,
) -> BTreeMap<String, Vec<Inode<'a>>> {
    let (done, mut todo): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|one| known(finding, cache, one.stat()).is_some());
    // What is read one after the other lies near each other, as far as names tell.
    todo.sort_by(|a, b| (a.store, &a.entry.real).cmp(&(b.store, &b.entry.real)));
    let stats: Vec<Stat> = todo.iter().map(|one| *one.stat()).collect();
    let total: u64 = stats.iter().map(|stat| stat.size).sum();
    let so_far = std::sync::atomic::AtomicU64::new(0);
    let step = |bytes: u64, at: usize| {
        let now = so_far.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        (finding.step)(now, total, &todo[at].entry.path)
    };
    let hashes = whole(&stats, &|at| todo[at].open(), &step);
    let mut hashed: Vec<(String, Inode<'a>)> =
        done.into_iter().filter_map(|one| Some((known(finding, cache, one.stat())?, one))).collect();
    for (one, hash) in todo.into_iter().zip(hashes) {
        match hash {
            Ok(hash) => {
                found.hashed_files += 1;
                found.hashed_bytes += one.stat().size;
                cache.insert(one.stat(), hash.clone());
                hashed.push((hash, one));
            }
            Err(why) => unread(finding, &one, &why, found),
        }
    }
    groups_by(hashed.into_iter())
}

fn known(finding: &Finding<'_>, cache: &HashCache, stat: &Stat) -> Option<String> {
    cache.get(stat).or_else(|| finding.hashes.get(stat)).map(str::to_owned)
}

fn leave(finding: &Finding<'_>, one: &Inode<'_>, reason: &str, found: &mut Duplicates) {
    found.left.push(LeftFile {
        what: one.what.clone(),
        store: finding.stores[one.store].0.id(),
        path: one.entry.real.clone(),
        size_bytes: one.stat().size,
        reason: reason.to_owned(),
    });
}

fn unread(finding: &Finding<'_>, one: &Inode<'_>, why: &Unread, found: &mut Duplicates) {
    let reason = match why {
        Unread::Stopped => {
            found.interrupted = true;
            return;
        }
        Unread::Changed => "was changed while it was read".to_owned(),
        Unread::System(error) => format!("cannot be read: {error}"),
    };
    leave(finding, one, &reason, found);
    let spec = &finding.stores[one.store].0;
    let mut problem: StoreProblem =
        store_problem(spec, ProblemKind::Unreadable, &format!("{} {reason}", one.entry.real));
    problem.problem.path = Some(one.entry.real.clone());
    found.problems.push(problem);
}

/// What becomes of a group of equal files: each filesystem's are one group.
fn settle(finding: &Finding<'_>, hash: &str, group: Vec<Inode<'_>>, found: &mut Duplicates) {
    let mut by_device: BTreeMap<u64, Vec<Inode<'_>>> = BTreeMap::new();
    for one in group {
        by_device.entry(one.stat().dev).or_default().push(one);
    }
    let several = by_device.len() > 1;
    for mut group in by_device.into_values() {
        if group.len() == 1 && several {
            leave(finding, &group[0], "its equals are on other filesystems", found);
            continue;
        }
        let kind = group[0].scan.filesystem.as_ref().and_then(|filesystem| filesystem.kind.as_deref());
        let shares = group[0].scan.filesystem.as_ref().is_some_and(|filesystem| filesystem.shares_blocks);
        // The one that takes the least stays; then the oldest, so that nothing that goes by times sees a newer file; then
        // the one with the most names.
        group.sort_by_key(|one| {
            let stat = one.stat();
            (stat.allocated, stat.mtime_ns, std::cmp::Reverse(stat.nlink), one.store, one.entry.real.clone())
        });
        let how = match reflinks(kind) {
            _ if finding.hard_link => How::HardLink,
            Reflinks::No => {
                let kind = kind.unwrap_or("this one");
                let reason = format!(
                    "the filesystem ({kind}) does not let files share blocks; --hardlink makes them one file with several names"
                );
                // One of them stays in any case.
                group.iter().skip(1).for_each(|one| leave(finding, one, &reason, found));
                continue;
            }
            Reflinks::Certain | Reflinks::Expected => How::Reflink,
        };
        let certain = how == How::HardLink || reflinks(kind) == Reflinks::Certain;
        while !group.is_empty() {
            group = part(finding, hash, group, (how, certain, shares), found);
        }
    }
}

#[derive(PartialEq, Eq)]
enum Reflinks {
    No,
    /// Some of these filesystems can, depending on how they were made.
    Expected,
    Certain,
}

fn reflinks(kind: Option<&str>) -> Reflinks {
    match kind {
        Some("btrfs" | "bcachefs" | "apfs") => Reflinks::Certain,
        Some("xfs" | "zfs" | "ocfs2" | "overlay" | "nfs" | "cifs") => Reflinks::Expected,
        _ => Reflinks::No,
    }
}

/// Makes a group of what can become one with the first; gives the others.
fn part<'a>(
    finding: &Finding<'_>,
    hash: &str,
    group: Vec<Inode<'a>>,
    (how, certain, shares): (How, bool, bool),
    found: &mut Duplicates,
) -> Vec<Inode<'a>> {
    let mut group = group.into_iter();
    let Some(keeps) = group.next() else { return Vec::new() };
    let mut copies = Vec::new();
    let mut others = Vec::new();
    let Ok(kept) = keeps.open() else {
        unread(finding, &keeps, &Unread::Changed, found);
        return group.collect();
    };
    for one in group {
        let file = match one.open() {
            Ok(file) => file,
            Err(error) => {
                unread(finding, &one, &Unread::from(error), found);
                continue;
            }
        };
        let stat = one.stat();
        let blocks = if shares { same_blocks(&kept, &file) } else { Some(false) };
        // Where the system does not say whose blocks are whose, one that has none of its own shares them already.
        if blocks.unwrap_or(one.entry.certain == 0) {
            continue;
        }
        if how == How::HardLink && !same_attributes(&kept, &file).unwrap_or(false) {
            others.push(one);
            continue;
        }
        if let Some(reason) = refused(finding, &one, &file, how) {
            leave(finding, &one, &reason, found);
            continue;
        }
        let saves = one.entry.certain.min(stat.allocated);
        if saves == 0 && stat.allocated == 0 {
            continue;
        }
        copies.push(DuplicateCopy {
            file: equal_file(finding, &one),
            how,
            certain,
            saves_bytes: saves,
            saves_at_least: saves < stat.allocated,
        });
    }
    if !copies.is_empty() {
        found.groups.push(DuplicateGroup {
            size_bytes: keeps.stat().size,
            blake3: hash.to_owned(),
            saves_bytes: copies.iter().map(|copy| copy.saves_bytes).sum(),
            keeps: equal_file(finding, &keeps),
            copies,
        });
    }
    if let [other] = others.as_slice() {
        let reason = format!(
            "equal to {}, but for its permissions, owner or extended attributes, which a hard link would share",
            keeps.what
        );
        leave(finding, other, &reason, found);
        return Vec::new();
    }
    others
}

/// Why a copy stays although it is equal.
fn refused(finding: &Finding<'_>, one: &Inode<'_>, file: &File, how: How) -> Option<String> {
    let owner = file.metadata().map_or(u32::MAX, |meta| meta.uid());
    if finding.user != 0 && owner != finding.user {
        return Some(format!("belongs to another user ({owner})"));
    }
    let known = one.names.len() as u64;
    let stores: HashSet<usize> = one.names.iter().map(|(store, _)| *store).collect();
    // The kernel lets a file keep its inode and all its names; elsewhere another one takes its place at each name.
    let by_name = how == How::HardLink || !cfg!(target_os = "linux");
    match known.cmp(&one.stat().nlink) {
        Ordering::Greater => Some("is seen at more places than it has names".to_owned()),
        Ordering::Less if by_name => Some(NAMED_ELSEWHERE.to_owned()),
        _ if by_name && stores.len() > 1 => Some(NAMED_IN_SEVERAL.to_owned()),
        _ => None,
    }
}

fn equal_file(finding: &Finding<'_>, one: &Inode<'_>) -> EqualFile {
    let stat = one.stat();
    let own = (one.store, one.entry.real.as_str());
    let others = one.names.iter().filter(|name| **name != own);
    EqualFile {
        what: one.what.clone(),
        store: finding.stores[one.store].0.id(),
        path: one.entry.real.clone(),
        also: others.map(|(store, path)| (finding.stores[*store].0.id(), (*path).to_owned())).collect(),
        models: one.models.iter().map(|model| (*model).to_owned()).collect(),
        device: stat.dev,
        inode: stat.ino,
        allocated_bytes: stat.allocated,
        mtime_ns: stat.mtime_ns,
        ctime_ns: stat.ctime_ns,
    }
}
