//! BLAKE3 of files that were read before. It is a cache: what cannot be read, or was damaged, is as good as none.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use mlxman_store::{DirHandle, Stat};
use serde::{Deserialize, Serialize};

use super::Duplicates;

const FORM: &str = "mlxman-dedupe-hashes-1";

/// A cache of a million files has 170 megabytes.
const LIMIT: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    schema: std::borrow::Cow<'a, str>,
    files: Vec<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    blake3: String,
}

/// Hashes by device and inode, which hold while size and times of modification and change are unchanged.
#[derive(Debug, Default)]
pub struct HashCache {
    path: PathBuf,
    known: HashMap<(u64, u64), Known>,
    changed: bool,
}

impl HashCache {
    /// Reads the cache in this directory.
    pub fn read(home: &Path) -> Self {
        let path = home.join("dedupe.json");
        let small = fs_err::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() < LIMIT);
        let bytes = if small { fs_err::read(&path).unwrap_or_default() } else { Vec::new() };
        let file = serde_json::from_slice::<File<'_>>(&bytes).ok().filter(|file| file.schema == FORM);
        let files = file.map(|file| file.files).unwrap_or_default();
        let is_hash =
            |one: &Known| one.blake3.len() == 64 && one.blake3.bytes().all(|b| b.is_ascii_hexdigit());
        let known = files.into_iter().filter(is_hash).map(|one| ((one.dev, one.ino), one)).collect();
        HashCache { path, known, changed: false }
    }

    /// What is known of an unchanged file.
    pub fn get(&self, stat: &Stat) -> Option<&str> {
        let known = self.known.get(&(stat.dev, stat.ino))?;
        let is_same =
            (known.size, known.mtime_ns, known.ctime_ns) == (stat.size, stat.mtime_ns, stat.ctime_ns);
        is_same.then_some(known.blake3.as_str())
    }

    pub(super) fn insert(&mut self, stat: &Stat, blake3: String) {
        let (dev, ino, size) = (stat.dev, stat.ino, stat.size);
        let known = Known { dev, ino, size, mtime_ns: stat.mtime_ns, ctime_ns: stat.ctime_ns, blake3 };
        self.known.insert((dev, ino), known);
        self.changed = true;
    }

    /// Takes in what became of files that were found to be equal, where they were made one: other inodes, or other times
    /// of change. That it may be wrong about a file that somebody wrote to meanwhile costs nothing: bytes are compared.
    pub fn renew(&mut self, found: &Duplicates, roots: &HashMap<String, DirHandle>) {
        for group in &found.groups {
            for file in group.copies.iter().map(|copy| &copy.file).chain([&group.keeps]) {
                let stat = roots.get(&file.store).and_then(|root| root.stat_below(&file.path).ok());
                let is_of_group = |stat: &Stat| {
                    let times = [file.mtime_ns, group.keeps.mtime_ns];
                    stat.size == group.size_bytes && times.contains(&stat.mtime_ns)
                };
                if let Some(stat) = stat.filter(is_of_group)
                    && self.get(&stat).is_none()
                {
                    self.insert(&stat, group.blake3.clone());
                }
            }
        }
    }

    /// Forgets files that were not seen on devices that were looked at.
    pub(super) fn retain(&mut self, seen: &HashSet<(u64, u64)>) {
        let devices: HashSet<u64> = seen.iter().map(|(dev, _)| *dev).collect();
        let before = self.known.len();
        self.known.retain(|id, _| seen.contains(id) || !devices.contains(&id.0));
        self.changed |= self.known.len() != before;
    }

    /// Writes it, if anything is new, whole.
    ///
    /// # Errors
    /// What the system says; then all is read again another time.
    pub fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut files: Vec<Known> = self.known.values().cloned().collect();
        files.sort_unstable_by_key(|one| (one.dev, one.ino));
        let bytes = serde_json::to_vec(&File { schema: FORM.into(), files })?;
        if let Some(dir) = self.path.parent() {
            fs_err::create_dir_all(dir)?;
        }
        mlxman_manifest::registry::write_whole(&self.path, &bytes)?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(dir: &Path, name: &str) -> Stat {
        DirHandle::open_root(dir).unwrap().stat_below(name).unwrap()
    }

    #[test]
    fn it_is_kept_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("a"), "a").unwrap();
        let seen = stat(dir.path(), "a");
        let mut cache = HashCache::read(dir.path());
        cache.insert(&seen, "ab".repeat(32));
        cache.save().unwrap();
        assert_eq!(HashCache::read(dir.path()).get(&seen), Some("ab".repeat(32).as_str()));
        // A change of permissions changes the time of change alone.
        let path = dir.path().join("a");
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs_err::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(HashCache::read(dir.path()).get(&stat(dir.path(), "a")), None);
        let text = fs_err::read_to_string(dir.path().join("dedupe.json")).unwrap();
        for damaged in [&text[..text.len() / 2], "", "null", "{\"schema\":\"other\",\"files\":[]}"] {
            fs_err::write(dir.path().join("dedupe.json"), damaged).unwrap();
            assert_eq!(HashCache::read(dir.path()).get(&seen), None, "{damaged}");
        }
    }
}
