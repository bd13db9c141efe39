//! Who uses which bytes of a store.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::access::{EntryKind, Stat};
use crate::links::LooseLink;

/// One thing in a store that can be removed as a whole: a snapshot, a model directory, a partial file, an orphan blob.
/// Ids are dense: `0..ledger.owners()`.
pub type OwnerId = u32;

/// Who must all be gone before some bytes are free.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Users {
    /// These owners.
    Some(Box<[OwnerId]>),
    /// All owners in `from..to`: a single one, or all of a repo, for its directories and what goes with the last of
    /// them.
    Range(OwnerId, OwnerId),
    /// Any one of these owners takes them along: a partial file in a model's directory goes by itself, or with the
    /// model.
    Any(Box<[OwnerId]>),
    /// Nothing that can be removed frees them: the store's own directories, what has names elsewhere too.
    Never,
}

impl Users {
    pub(crate) fn one(owner: OwnerId) -> Self {
        Users::Range(owner, owner + 1)
    }

    pub(crate) fn several(mut owners: Vec<OwnerId>) -> Self {
        owners.sort_unstable();
        owners.dedup();
        match owners.as_slice() {
            [one] => Users::one(*one),
            _ => Users::Some(owners.into_boxed_slice()),
        }
    }

    fn ids(&self) -> Option<Vec<OwnerId>> {
        match self {
            Users::Some(ids) => Some(ids.to_vec()),
            Users::Range(from, to) => Some((*from..*to).collect()),
            // Only single names are booked so; one of several names is held to the stricter rule.
            Users::Any(ids) => Some(ids.to_vec()),
            Users::Never => None,
        }
    }

    fn shift(&mut self, by: OwnerId) {
        match self {
            Users::Some(ids) | Users::Any(ids) => ids.iter_mut().for_each(|id| *id += by),
            Users::Range(from, to) => {
                *from += by;
                *to += by;
            }
            Users::Never => {}
        }
    }

    /// How many of them must go before the bytes are free.
    fn needed(&self) -> usize {
        match self {
            Users::Some(ids) if ids.is_empty() => usize::MAX,
            Users::Some(ids) => ids.len(),
            Users::Range(from, to) if from < to => (to - from) as usize,
            Users::Any(_) => 1,
            Users::Range(..) | Users::Never => usize::MAX,
        }
    }

    fn all_in(&self, gone: &HashSet<OwnerId>) -> bool {
        match self {
            Users::Some(ids) => !ids.is_empty() && ids.iter().all(|id| gone.contains(id)),
            Users::Range(from, to) => from < to && (*from..*to).all(|id| gone.contains(&id)),
            Users::Any(ids) => ids.iter().any(|id| gone.contains(id)),
            Users::Never => false,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bytes {
    allocated: u64,
    certain: u64,
}

/// What the filesystem would get back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// Bytes that come back for certain.
    pub bytes: u64,
    /// Whether more may come back: some of it lies in blocks that other files may share.
    pub at_least: bool,
}

/// Sums allocated bytes by the set of owners that must all go before they are free, so that any set of removals can
/// be priced exactly: a blob that two snapshots share, or an inode with two names, counts once, and only when its
/// last user goes.
#[derive(Debug, Default)]
pub struct Ledger {
    by_owner: HashMap<OwnerId, Vec<usize>>,
    list: Vec<(Users, Bytes)>,
    owners: OwnerId,
    apparent: u64,
    allocated: u64,
    entries: u64,
}

#[derive(Debug)]
struct Named {
    size: u64,
    nlink: u64,
    seen: u64,
    bytes: Bytes,
    users: Vec<Users>,
}

/// A ledger in the making; one a repo, then merged.
#[derive(Debug, Default)]
pub(crate) struct LedgerBuilder {
    classes: HashMap<Users, Bytes>,
    /// Inodes with more than one name: which may all lie in this store, or not.
    named: HashMap<(u64, u64), Named>,
    owners: OwnerId,
    apparent: u64,
    allocated: u64,
    entries: u64,
    /// Links that were counted and not followed: what they lead to is somebody's.
    pub(crate) links: Vec<LooseLink>,
}

impl LedgerBuilder {
    /// A new owner.
    pub(crate) fn owner(&mut self) -> OwnerId {
        self.owners += 1;
        self.owners - 1
    }

    pub(crate) fn owners(&self) -> OwnerId {
        self.owners
    }

    /// Whether anything in it can never go.
    pub(crate) fn holds_for_ever(&self) -> bool {
        self.classes.contains_key(&Users::Never)
            || self.named.values().any(|named| named.users.contains(&Users::Never))
    }

    /// Adds one entry. `certain` is what of its allocation is certainly its own.
    pub(crate) fn add(&mut self, stat: &Stat, certain: u64, users: Users) {
        self.entries += 1;
        let bytes = Bytes { allocated: stat.allocated, certain: certain.min(stat.allocated) };
        if stat.nlink > 1 && stat.kind != EntryKind::Dir {
            let named = self.named.entry((stat.dev, stat.ino)).or_insert_with(|| {
                self.apparent = self.apparent.saturating_add(stat.size);
                self.allocated = self.allocated.saturating_add(stat.allocated);
                Named { size: stat.size, nlink: stat.nlink, seen: 0, bytes, users: Vec::new() }
            });
            named.seen += 1;
            named.users.push(users);
        } else {
            self.apparent = self.apparent.saturating_add(stat.size);
            self.allocated = self.allocated.saturating_add(stat.allocated);
            add_class(&mut self.classes, users, bytes);
        }
    }

    /// Takes in another builder; gives by how much its owners' ids were shifted.
    pub(crate) fn merge(&mut self, mut other: LedgerBuilder) -> OwnerId {
        self.links.append(&mut other.links);
        let shift = self.owners;
        for (mut users, bytes) in other.classes {
            users.shift(shift);
            add_class(&mut self.classes, users, bytes);
        }
        self.apparent = self.apparent.saturating_add(other.apparent);
        self.allocated = self.allocated.saturating_add(other.allocated);
        for (inode, mut named) in other.named {
            named.users.iter_mut().for_each(|users| users.shift(shift));
            match self.named.get_mut(&inode) {
                Some(mine) => {
                    self.allocated = self.allocated.saturating_sub(named.bytes.allocated);
                    self.apparent = self.apparent.saturating_sub(named.size);
                    mine.seen += named.seen;
                    mine.users.append(&mut named.users);
                }
                None => {
                    self.named.insert(inode, named);
                }
            }
        }
        self.owners += other.owners;
        self.entries += other.entries;
        shift
    }

    pub(crate) fn finish(mut self) -> Ledger {
        for named in std::mem::take(&mut self.named).into_values() {
            let mut all = Some(Vec::new());
            for users in &named.users {
                all = all.zip(users.ids()).map(|(mut all, ids)| {
                    all.extend(ids);
                    all
                });
            }
            let users = match all {
                Some(ids) if named.seen >= named.nlink => Users::several(ids),
                _ => Users::Never,
            };
            add_class(&mut self.classes, users, named.bytes);
        }
        let mut ledger = Ledger {
            owners: self.owners,
            apparent: self.apparent,
            allocated: self.allocated,
            entries: self.entries,
            ..Ledger::default()
        };
        for (users, bytes) in self.classes {
            let index = ledger.list.len();
            match &users {
                Users::Some(ids) | Users::Any(ids) => {
                    ids.iter().for_each(|id| ledger.by_owner.entry(*id).or_default().push(index));
                }
                Users::Range(from, to) => {
                    (*from..*to).for_each(|id| ledger.by_owner.entry(id).or_default().push(index));
                }
                Users::Never => {}
            }
            ledger.list.push((users, bytes));
        }
        ledger
    }
}

fn add_class(classes: &mut HashMap<Users, Bytes>, users: Users, bytes: Bytes) {
    let sum = classes.entry(users).or_default();
    sum.allocated = sum.allocated.saturating_add(bytes.allocated);
    sum.certain = sum.certain.saturating_add(bytes.certain);
}

impl Ledger {
    /// How many owners there are.
    pub fn owners(&self) -> OwnerId {
        self.owners
    }

    /// Allocated bytes of everything under the store's root, the root included, each inode once: what `du -s` says.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    /// Apparent bytes of the same, each inode once: what `du -s --apparent-size` says.
    pub fn apparent_bytes(&self) -> u64 {
        self.apparent
    }

    /// Entries seen.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What the filesystem gets back when all of `gone` go, and nothing else.
    pub fn reclaim(&self, gone: impl IntoIterator<Item = OwnerId>) -> Reclaim {
        let gone: HashSet<OwnerId> = gone.into_iter().collect();
        let mut touched: Vec<usize> =
            gone.iter().filter_map(|id| self.by_owner.get(id)).flatten().copied().collect();
        touched.sort_unstable();
        touched.dedup();
        let mut result = Reclaim::default();
        for index in touched {
            let (users, bytes) = &self.list[index];
            if users.all_in(&gone) {
                result.bytes = result.bytes.saturating_add(bytes.certain);
                result.at_least |= bytes.certain < bytes.allocated;
            }
        }
        result
    }
}

/// A set of removals in the making: what it frees is known after each step, without pricing the whole set again.
#[derive(Debug)]
pub struct Tally<'a> {
    ledger: &'a Ledger,
    gone: HashSet<OwnerId>,
    /// Of each class that somebody in the set uses: how many of them are in it.
    going: HashMap<usize, usize>,
    bytes: u64,
}

impl Ledger {
    /// An empty set of removals.
    pub fn tally(&self) -> Tally<'_> {
        Tally { ledger: self, gone: HashSet::new(), going: HashMap::new(), bytes: 0 }
    }
}

impl Tally<'_> {
    /// What the filesystem gets back for certain when all of the set go: the same as [`Ledger::reclaim`] says.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn classes(&self, owner: OwnerId) -> &[usize] {
        self.ledger.by_owner.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// Puts an owner into the set.
    pub fn add(&mut self, owner: OwnerId) {
        if !self.gone.insert(owner) {
            return;
        }
        for index in self.ledger.by_owner.get(&owner).into_iter().flatten() {
            let (users, bytes) = &self.ledger.list[*index];
            let going = self.going.entry(*index).or_default();
            *going += 1;
            if *going == users.needed() {
                self.bytes = self.bytes.saturating_add(bytes.certain);
            }
        }
    }

    /// Takes an owner out of the set.
    pub fn remove(&mut self, owner: OwnerId) {
        if !self.gone.remove(&owner) {
            return;
        }
        for index in self.ledger.by_owner.get(&owner).into_iter().flatten() {
            let (users, bytes) = &self.ledger.list[*index];
            let Some(going) = self.going.get_mut(index) else { continue };
            if *going == users.needed() {
                self.bytes = self.bytes.saturating_sub(bytes.certain);
            }
            *going -= 1;
        }
    }

    /// By how much less the set would free without this owner.
    pub fn share_of(&self, owner: OwnerId) -> u64 {
        if !self.gone.contains(&owner) {
            return 0;
        }
        self.classes(owner).iter().fold(0, |sum, index| {
            let (users, bytes) = &self.ledger.list[*index];
            let is_last = self.going.get(index) == Some(&users.needed());
            sum.saturating_add(if is_last { bytes.certain } else { 0 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stat(ino: u64, nlink: u64, allocated: u64) -> Stat {
        Stat {
            kind: EntryKind::File,
            dev: 1,
            ino,
            nlink,
            size: allocated,
            allocated,
            mtime_ns: 0,
            ctime_ns: 0,
            atime_ns: 0,
        }
    }

    #[test]
    fn a_shared_blob_is_free_when_its_last_user_goes() {
        let mut book = LedgerBuilder::default();
        let (a, b) = (book.owner(), book.owner());
        book.add(&stat(1, 1, 10), 10, Users::one(a));
        book.add(&stat(2, 1, 100), 100, Users::several(vec![a, b]));
        book.add(&stat(3, 1, 1000), 1000, Users::Range(0, 2));
        let ledger = book.finish();
        assert_eq!(ledger.reclaim([a]).bytes, 10);
        assert_eq!(ledger.reclaim([b]).bytes, 0);
        assert_eq!(ledger.reclaim([a, b]).bytes, 1110);
        assert_eq!(ledger.allocated_bytes(), 1110);
    }

    #[test]
    fn a_hard_link_elsewhere_keeps_the_bytes() {
        let mut book = LedgerBuilder::default();
        let (a, b) = (book.owner(), book.owner());
        book.add(&stat(1, 2, 10), 10, Users::one(a));
        book.add(&stat(1, 2, 10), 10, Users::one(b));
        book.add(&stat(2, 2, 100), 100, Users::one(a));
        let ledger = book.finish();
        assert_eq!(ledger.reclaim([a]).bytes, 0);
        assert_eq!(ledger.reclaim([a, b]).bytes, 10);
        assert_eq!(ledger.allocated_bytes(), 110);
    }

    #[test]
    fn two_names_in_two_repos_count_once() {
        let mut all = LedgerBuilder::default();
        for _ in 0..2 {
            let mut repo = LedgerBuilder::default();
            let owner = repo.owner();
            repo.add(&stat(7, 2, 50), 50, Users::one(owner));
            all.merge(repo);
        }
        let ledger = all.finish();
        assert_eq!(ledger.allocated_bytes(), 50);
        assert_eq!(ledger.apparent_bytes(), 50);
        assert_eq!((ledger.reclaim([0]).bytes, ledger.reclaim([0, 1]).bytes), (0, 50));
    }

    #[test]
    fn uncertain_bytes_are_told_as_at_least() {
        let mut book = LedgerBuilder::default();
        let a = book.owner();
        book.add(&stat(1, 1, 100), 40, Users::one(a));
        assert_eq!(book.finish().reclaim([a]), Reclaim { bytes: 40, at_least: true });
    }

    proptest! {
        #[test]
        fn reclaim_grows_with_the_set_and_never_passes_the_whole(
            entries in prop::collection::vec((1u64..4096, prop::collection::vec(0u32..6, 0..4)), 0..40),
            smaller in prop::collection::hash_set(0u32..6, 0..6),
            more in prop::collection::hash_set(0u32..6, 0..6),
        ) {
            let mut book = LedgerBuilder::default();
            (0..6).for_each(|_| { book.owner(); });
            for (ino, (bytes, users)) in entries.iter().enumerate() {
                book.add(&stat(ino as u64, 1, *bytes), *bytes, Users::several(users.clone()));
            }
            let ledger = book.finish();
            let larger: HashSet<u32> = smaller.union(&more).copied().collect();
            let expected: u64 = entries.iter()
                .filter(|(_, users)| !users.is_empty() && users.iter().all(|user| smaller.contains(user)))
                .map(|(bytes, _)| bytes).sum();
            prop_assert_eq!(ledger.reclaim(smaller.iter().copied()).bytes, expected);
            let wide = ledger.reclaim(larger).bytes;
            prop_assert!(expected <= wide && wide <= ledger.allocated_bytes());
            let alone: u64 = smaller.iter().map(|&owner| ledger.reclaim([owner]).bytes).sum();
            prop_assert!(alone <= expected);
            // One by one it comes to the same, and each one's share is what the set would free less without it.
            let mut tally = ledger.tally();
            smaller.iter().chain(&smaller).for_each(|owner| tally.add(*owner));
            prop_assert_eq!(tally.bytes(), expected);
            for owner in &smaller {
                let rest = ledger.reclaim(smaller.iter().copied().filter(|other| other != owner)).bytes;
                prop_assert_eq!(tally.share_of(*owner), expected - rest);
                tally.remove(*owner);
                prop_assert_eq!(tally.bytes(), rest);
                tally.add(*owner);
            }
        }
    }
}
