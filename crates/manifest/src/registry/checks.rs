//! Which contents were read and found to be what they should be, and when.
//!
//! It is a cache: without it everything is read again. So a file that is damaged, or that another program wrote, counts
//! as empty and is written anew.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use mlxman_store::Stat;
use serde::{Deserialize, Serialize};

use super::hashes::Hashes;
use super::{Registry, RegistryError, whole_file};

/// A file is taken note of in parts of so many bytes, so that a damage can be told by its place.
pub const CHUNK: u64 = 64 << 20;

/// The version of the file's form.
const VERSION: u32 = 1;

/// What was not checked for so long is forgotten: most likely it is no longer there.
const KEPT: TimeDelta = TimeDelta::days(400);

/// A larger file than this is not read.
const LIMIT: u64 = 1 << 30;

/// Which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKind {
    /// SHA-256.
    Sha256,
    /// The SHA-1 that git gives a blob.
    GitSha1,
    /// BLAKE3.
    Blake3,
}

/// What a hash has come to at the end of each [`CHUNK`], as the hashing has it: with these each part can be checked
/// without the others, and hashing can go on where it was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Of which hash.
    pub kind: HashKind,
    /// In the order of the parts.
    pub at: Vec<String>,
}

/// One content that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    /// When it was read.
    pub at: DateTime<Utc>,
    /// Its hashes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hashes: BTreeMap<HashKind, String>,
    /// Its parts, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
    /// Whether only its first parts were read, those that have marks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
}

impl Check {
    /// Of a content with this stat.
    pub fn new(
        stat: &Stat,
        at: DateTime<Utc>,
        hashes: BTreeMap<HashKind, String>,
        marks: Option<Marks>,
    ) -> Self {
        Check {
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            at,
            hashes,
            marks,
            partly: false,
        }
    }

    fn is_of(&self, stat: &Stat) -> bool {
        (self.size, self.mtime_ns, self.ctime_ns) == (stat.size, stat.mtime_ns, stat.ctime_ns)
    }
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    checks: Vec<Check>,
}

type Inode = (u64, u64);

/// Everything that was checked.
#[derive(Debug, Default)]
pub struct Checks {
    whole: HashMap<Inode, Check>,
    partly: HashMap<Inode, Check>,
    /// What came since it was written last.
    fresh: Vec<Inode>,
    /// The contents that have marks, by their hash: they hold for every file with that content.
    marked: HashMap<(HashKind, String), Inode>,
}

impl Checks {
    fn of(checks: Vec<Check>) -> Self {
        let mut all = Checks::default();
        checks.into_iter().for_each(|check| all.put(check));
        all
    }

    fn put(&mut self, check: Check) {
        let inode = (check.dev, check.ino);
        if check.partly {
            self.partly.insert(inode, check);
            return;
        }
        // What was begun is done.
        self.partly.remove(&inode);
        if let Some(marks) = &check.marks
            && let Some(hash) = check.hashes.get(&marks.kind)
        {
            self.marked.insert((marks.kind, hash.clone()), inode);
        }
        self.whole.insert(inode, check);
    }

    /// The check of a content that has not changed since.
    pub fn get(&self, stat: &Stat) -> Option<&Check> {
        self.whole.get(&(stat.dev, stat.ino)).filter(|check| check.is_of(stat))
    }

    /// What was read of a content before reading it was stopped, if it has not changed since.
    pub fn begun(&self, stat: &Stat) -> Option<&Marks> {
        self.partly.get(&(stat.dev, stat.ino)).filter(|check| check.is_of(stat))?.marks.as_ref()
    }

    /// The marks of the content that has this hash.
    pub fn marks_of(&self, kind: HashKind, hash: &str) -> Option<&Marks> {
        let check = self.whole.get(self.marked.get(&(kind, hash.to_owned()))?)?;
        check
            .marks
            .as_ref()
            .filter(|marks| marks.kind == kind && check.hashes.get(&kind).is_some_and(|own| own == hash))
    }

    /// Takes in a check.
    pub fn insert(&mut self, check: Check) {
        self.fresh.push((check.dev, check.ino));
        self.put(check);
    }

    /// Takes in that only the first parts of a content were read.
    pub fn insert_partly(&mut self, check: Check) {
        self.insert(Check { partly: true, ..check });
    }
}

/// A BLAKE3 that an earlier `sync` took of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHash {
    /// The hash.
    pub blake3: String,
    /// Whether the file's size and time of modification are still those at which it was taken.
    pub holds: bool,
}

impl Registry {
    fn checks_file(&self) -> PathBuf {
        self.home.join("checks.json")
    }

    /// Everything that was checked; nothing where that cannot be read.
    pub fn checks(&self) -> Checks {
        let read = |path: PathBuf| -> Option<Written> {
            let small = fs_err::metadata(&path).ok()?.len() <= LIMIT;
            let bytes = fs_err::read(&path).ok().filter(|_| small)?;
            serde_json::from_slice(&bytes).ok()
        };
        let written = read(self.checks_file()).filter(|written| written.version == VERSION);
        Checks::of(written.map(|written| written.checks).unwrap_or_default())
    }

    /// Writes what came to `checks` since it was written last. What another process has checked meanwhile is kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_checks(&self, checks: &mut Checks, now: DateTime<Utc>) -> Result<(), RegistryError> {
        if checks.fresh.is_empty() {
            return Ok(());
        }
        let _lock = self.lock(&|| {})?;
        let mut all = self.checks();
        for inode in &checks.fresh {
            if let Some(check) = checks.whole.get(inode)
                && all.whole.get(inode).is_none_or(|known| known.at <= check.at)
            {
                all.put(check.clone());
            }
            // Begun, perhaps anew after it was checked; or begun and done.
            match checks.partly.get(inode) {
                Some(check) => all.put(check.clone()),
                None => drop(all.partly.remove(inode)),
            }
        }
        let mut list: Vec<Check> = all.whole.into_values().chain(all.partly.into_values()).collect();
        list.retain(|check| now - check.at <= KEPT);
        list.sort_unstable_by_key(|check| (check.dev, check.ino, check.partly));
        let path = self.checks_file();
        let failed =
            |source| RegistryError::Io { doing: "write what was checked into", path: path.clone(), source };
        let bytes = serde_json::to_vec(&Written { version: VERSION, checks: list })
            .map_err(|error| failed(error.into()))?;
        whole_file::write(&path, &bytes).map_err(failed)?;
        checks.fresh.clear();
        Ok(())
    }

    /// Finds the BLAKE3 that an earlier `sync` took of a file.
    pub fn known_hashes(&self) -> impl Fn(&Stat) -> Option<KnownHash> + Send + Sync + use<> {
        let hashes = Hashes::read(&self.home.join("hashes.json"));
        move |stat| {
            hashes.of_inode(stat).map(|(blake3, holds)| KnownHash { blake3: blake3.to_owned(), holds })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlxman_store::EntryKind;

    fn stat(ino: u64, mtime_ns: i64) -> Stat {
        Stat {
            kind: EntryKind::File,
            dev: 1,
            ino,
            nlink: 1,
            size: 10,
            allocated: 10,
            mtime_ns,
            ctime_ns: mtime_ns,
            atime_ns: 0,
        }
    }

    fn check(ino: u64, hash: &str, day: i64) -> Check {
        let at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(day);
        let marks = Marks { kind: HashKind::Sha256, at: vec!["m".to_owned()] };
        Check::new(&stat(ino, 5), at, BTreeMap::from([(HashKind::Sha256, hash.to_owned())]), Some(marks))
    }

    #[test]
    fn what_was_checked_is_known_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(500);
        let mut mine = registry.checks();
        let mut theirs = registry.checks();
        mine.insert(check(1, "a", 450));
        mine.insert(check(9, "old", 3));
        registry.keep_checks(&mut mine, now).unwrap();
        // Two at once: neither loses what the other found.
        theirs.insert(check(2, "b", 451));
        theirs.insert_partly(check(1, "a", 452));
        registry.keep_checks(&mut theirs, now).unwrap();
        let all = registry.checks();
        assert_eq!(all.get(&stat(1, 5)).unwrap().hashes[&HashKind::Sha256], "a");
        assert!(
            all.get(&stat(2, 5)).is_some()
                && all.get(&stat(2, 6)).is_none()
                && all.get(&stat(3, 5)).is_none()
        );
        assert!(all.get(&stat(9, 5)).is_none(), "what was not checked for a year is forgotten");
        assert_eq!(all.begun(&stat(1, 5)).unwrap().at, ["m"]);
        assert!(all.begun(&stat(1, 6)).is_none());
        assert!(
            all.marks_of(HashKind::Sha256, "b").is_some() && all.marks_of(HashKind::Blake3, "b").is_none()
        );
        let mut done = registry.checks();
        done.insert(check(1, "a", 453));
        registry.keep_checks(&mut done, now).unwrap();
        assert!(registry.checks().begun(&stat(1, 5)).is_none(), "what was begun is done");
    }

    #[test]
    fn what_is_no_record_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        let now = DateTime::<Utc>::UNIX_EPOCH;
        for text in [
            "",
            "{",
            "[]",
            "{\"version\": 2, \"checks\": []}",
            "{\"version\": 1, \"checks\": [{\"dev\": -1}]}",
        ] {
            fs_err::write(registry.checks_file(), text).unwrap();
            let mut checks = registry.checks();
            assert!(checks.get(&stat(1, 5)).is_none());
            checks.insert(check(1, "a", 0));
            registry.keep_checks(&mut checks, now).unwrap();
            assert!(registry.checks().get(&stat(1, 5)).is_some(), "{text} is written over");
        }
    }
}
