//! When models were used: a log of the registry's own. A file's access time tells of everybody who read it, a backup or a
//! checksum as much as a program that loads the model, and many filesystems keep none.
//!
//! One JSON object a line, appended with one write each. Whoever appends holds a shared lock of the file meanwhile, and
//! whoever writes it anew an exclusive one, so that no line is lost between the two.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A log larger than this is written anew, with the newest use of each model alone.
const COMPACT_ABOVE: u64 = 1 << 20;

/// No more than this is read of a log: its end, where the newest uses stand.
const READ_LIMIT: u64 = 64 << 20;

/// A longer line is none of ours.
const LINE_LIMIT: usize = 64 << 10;

/// One use of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// When.
    pub time: DateTime<Utc>,
    /// The model's store, as `KIND=PATH`.
    pub store: String,
    /// Its place in the store.
    pub key: String,
    /// What used it: `path`, `run`, `verify`.
    pub by: String,
}

/// What says when a model was last used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsedBy {
    /// The usage log.
    Log,
    /// The times of its files, as far as the filesystem keeps them.
    #[default]
    FileTimes,
}

impl UsedBy {
    /// In words, as in `by the usage log`.
    pub fn describe(self) -> &'static str {
        match self {
            UsedBy::Log => "the usage log",
            UsedBy::FileTimes => "file times",
        }
    }
}

/// The newest use of each model that the log knows.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    by_store: HashMap<String, HashMap<String, Use>>,
}

impl Uses {
    /// The newest use of a model, if any was recorded.
    pub fn last(&self, store: &str, key: &str) -> Option<&Use> {
        self.by_store.get(store)?.get(key)
    }

    /// Whether no use was recorded.
    pub fn is_empty(&self) -> bool {
        self.by_store.is_empty()
    }

    fn add(&mut self, one: Use) {
        let of_store = match self.by_store.get_mut(&one.store) {
            Some(of_store) => of_store,
            None => self.by_store.entry(one.store.clone()).or_default(),
        };
        match of_store.get_mut(&one.key) {
            Some(known) if known.time >= one.time => {}
            Some(known) => *known = one,
            None => {
                of_store.insert(one.key.clone(), one);
            }
        }
    }

    /// What stands in a log. Lines that are no uses are left out: one that a killed writer left unfinished, or that
    /// somebody else put there.
    fn parse(bytes: &[u8]) -> Self {
        let mut uses = Uses::default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| line.len() <= LINE_LIMIT);
        lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|one| uses.add(one));
        uses
    }

    /// The lines of a log that says the same, oldest first.
    fn lines(&self) -> io::Result<Vec<u8>> {
        let mut all: Vec<&Use> = self.by_store.values().flat_map(HashMap::values).collect();
        all.sort_by(|a, b| (a.time, &a.store, &a.key).cmp(&(b.time, &b.store, &b.key)));
        let mut lines = Vec::new();
        for one in all {
            lines.extend(line_of(one)?);
        }
        Ok(lines)
    }
}

fn line_of(one: &Use) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(one)?;
    line.push(b'\n');
    Ok(line)
}

/// The log.
#[derive(Debug, Clone)]
pub struct UseLog {
    path: PathBuf,
}

impl UseLog {
    /// The log at `path`, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        UseLog { path: path.into() }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records a use: one write of one line. Answers whether the log has become so long that it should be written anew.
    ///
    /// # Errors
    /// What the system says, or that there is something else than a file in its place.
    pub fn record(&self, one: &Use) -> io::Result<bool> {
        let mut line = line_of(one)?;
        if line.len() > LINE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the model's place has too long a name"));
        }
        // Where another is written meanwhile, what is appended to this one is in neither.
        let mut file = loop {
            let file = self.open(OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
            // Whoever is in the middle of a line is waited for: its beginning alone would look like what a kill left. Where the
            // filesystem has no locks there is none to take.
            let _ = file.lock();
            if self.is_current(&file)? {
                break file;
            }
        };
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
        let written = loop {
            match file.write(&line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if written < line.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk took only a part of the line"));
        }
        Ok(file.metadata()?.len() > COMPACT_ABOVE)
    }

    /// What it says. One that is not there says nothing.
    ///
    /// # Errors
    /// What the system says, or that there is something else than a file in its place.
    pub fn read(&self) -> io::Result<Uses> {
        match self.open(OFlags::RDONLY) {
            Ok(file) => Ok(Uses::parse(&end_of(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Uses::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it anew, whole, with the newest use of each model alone. Only under the registry's lock: `write` puts
    /// bytes in a file's place.
    ///
    /// # Errors
    /// What the system or `write` says; the log is then as it was.
    pub fn compact(&self, write: impl FnOnce(&Path, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let file = self.open(OFlags::RDWR)?;
        // Held until the new one is in place: who appends waits, and sees then that this one is the old.
        file.lock()?;
        if !self.is_current(&file)? {
            return Ok(());
        }
        let lines = Uses::parse(&end_of(file.try_clone()?)?).lines()?;
        write(&self.path, &lines)
    }

    /// Opens it: a regular file, and no link that somebody put there.
    fn open(&self, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::from_raw_mode(0o666))?;
        let stat = rustix::fs::fstat(file.as_fd())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(file.into())
    }

    /// Whether an open file is still the one that the log's name leads to.
    fn is_current(&self, file: &File) -> io::Result<bool> {
        let open = file.metadata()?;
        match self.path.symlink_metadata() {
            Ok(now) => Ok((now.dev(), now.ino()) == (open.dev(), open.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A log's content, or the end of one that is too long.
fn end_of(mut file: File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ_LIMIT)))?;
    let mut bytes = Vec::new();
    file.take(READ_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, seconds: i64) -> Use {
        let time = DateTime::from_timestamp(seconds, 0).unwrap();
        Use { time, store: "hub=/h".to_owned(), key: key.to_owned(), by: "path".to_owned() }
    }

    fn log() -> (tempfile::TempDir, UseLog) {
        let dir = tempfile::tempdir().unwrap();
        let log = UseLog::at(dir.path().join("uses.jsonl"));
        (dir, log)
    }

    /// As the registry does it.
    fn whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        fs_err::write(&new, bytes)?;
        fs_err::rename(&new, path)
    }

    #[test]
    fn the_newest_use_of_each_model_counts() {
        let (_dir, log) = log();
        assert!(log.read().unwrap().is_empty());
        for (key, seconds) in [("a", 5), ("b", 7), ("a", 9), ("a", 8)] {
            assert!(!log.record(&one(key, seconds)).unwrap());
        }
        let uses = log.read().unwrap();
        assert_eq!(uses.last("hub=/h", "a"), Some(&one("a", 9)));
        assert_eq!(uses.last("hub=/h", "b"), Some(&one("b", 7)));
        assert!(uses.last("hub=/h", "c").is_none() && uses.last("hub=/g", "a").is_none());
    }

    #[test]
    fn what_is_no_use_is_left_out() {
        let (_dir, log) = log();
        log.record(&one("a", 5)).unwrap();
        let mut bytes = fs_err::read(log.path()).unwrap();
        bytes.extend_from_slice(b"null\n[1]\n{\"time\":\"soon\"}\n\xff\xfe\n\n");
        bytes.extend(std::iter::repeat_n(b'{', LINE_LIMIT + 1));
        bytes.extend_from_slice(b"\n{\"time\":\"2026-01-01T00:00:00Z\",\"store\":\"hub=/h\",\"key\":\"half");
        fs_err::write(log.path(), &bytes).unwrap();
        log.record(&one("b", 6)).unwrap();
        let uses = log.read().unwrap();
        assert!(uses.last("hub=/h", "a").is_some() && uses.last("hub=/h", "b").is_some());
        assert_eq!(uses.by_store["hub=/h"].len(), 2);
    }

    #[test]
    fn nothing_but_a_file_is_written_or_read() {
        let (dir, log) = log();
        fs_err::write(dir.path().join("theirs"), "x").unwrap();
        fs_err::os::unix::fs::symlink("theirs", log.path()).unwrap();
        assert!(log.record(&one("a", 5)).is_err() && log.read().is_err());
        assert_eq!(fs_err::read(dir.path().join("theirs")).unwrap(), b"x");
        fs_err::remove_file(log.path()).unwrap();
        rustix::fs::mkfifoat(CWD, log.path(), 0o644.into()).unwrap();
        assert!(log.record(&one("a", 5)).is_err() && log.read().is_err());
    }

    #[test]
    fn a_long_log_is_written_anew_and_loses_nothing_meanwhile() {
        let (_dir, log) = log();
        let long = "k".repeat(4000);
        let mut grown = false;
        for seconds in 0..400 {
            grown = log.record(&one(&long, seconds)).unwrap();
        }
        assert!(grown);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..50 {
                        log.record(&one(&format!("{thread}-{number}"), number)).unwrap();
                    }
                });
            }
            for _ in 0..20 {
                log.compact(whole).unwrap();
            }
        });
        log.compact(whole).unwrap();
        let uses = log.read().unwrap();
        assert_eq!(uses.by_store["hub=/h"].len(), 8 * 50 + 1);
        assert_eq!(uses.last("hub=/h", &long).unwrap().time.timestamp(), 399);
        assert!(fs_err::metadata(log.path()).unwrap().len() < COMPACT_ABOVE);
    }
}
