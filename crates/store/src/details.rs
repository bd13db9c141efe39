//! What a layout itself records of a model's files, read only for models that changed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read;

use serde::Deserialize;

use crate::access::{DirHandle, EntryKind};
use crate::problem::{Problem, ProblemKind};
use crate::safe::is_safe_relative;
use crate::scan::{FoundModel, Scan};

const LISTING_LIMIT: u64 = 64 << 20;
const RECORD_LIMIT: u64 = 4096;

/// One file of a repo's listing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListingFile {
    /// Apparent bytes.
    pub size: u64,
    /// SHA-1 as git has it.
    #[serde(default)]
    pub blob_id: Option<String>,
    /// SHA-256, for files in large file storage.
    #[serde(default)]
    pub lfs_sha256: Option<String>,
    /// The hash that Xet storage knows it by.
    #[serde(default)]
    pub xet_hash: Option<String>,
}

/// The listing of a whole repo at one revision, as huggingface_hub 1.32 and later keeps it in `trees/<commit>.json`.
/// A snapshot may hold fewer files: a deliberate partial download is not damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// By path.
    pub files: BTreeMap<String, ListingFile>,
}

#[derive(Deserialize)]
struct RawListing {
    files: BTreeMap<String, ListingFile>,
}

/// What `hf download --local-dir` recorded of one file: the three lines of its `.metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalFile {
    /// The commit it came from.
    pub commit: String,
    /// SHA-256 for large files, SHA-1 as git has it for others.
    pub etag: String,
    /// Seconds since 1970 when it was recorded.
    pub timestamp: Option<f64>,
}

/// What `hf download --local-dir` recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalDownload {
    /// By path.
    pub files: BTreeMap<String, LocalFile>,
}

impl LocalDownload {
    /// The one commit that all files came from, if they did.
    pub fn commit(&self) -> Option<&str> {
        let mut commits = self.files.values().map(|file| file.commit.as_str());
        let first = commits.next()?;
        commits.all(|commit| commit == first).then_some(first)
    }
}

/// What a layout itself records of a model's files.
#[derive(Debug, Default)]
pub struct Details {
    /// The whole repo's listing.
    pub listing: Option<Listing>,
    /// What `hf download --local-dir` recorded.
    pub download: Option<LocalDownload>,
    /// What is wrong with these records.
    pub problems: Vec<Problem>,
}

impl Scan {
    /// Reads what the layout records of `model`'s files.
    pub fn details(&self, model: &FoundModel) -> Details {
        let mut details = Details::default();
        if let Some(records) = &model.download_records {
            details.download = self.local_download(model, records, &mut details.problems);
        }
        let listing = model.listing.as_ref().map(|(path, _)| path.clone()).or_else(|| {
            let commit = details.download.as_ref()?.commit()?;
            let records = model.download_records.as_ref()?;
            let path = format!("{records}/trees/{commit}.json");
            self.root().open_below(&path).is_ok().then_some(path)
        });
        if let Some(path) = listing {
            match self.read_listing(&path) {
                Ok(listing) => details.listing = Some(listing),
                Err(why) => details.problems.push(Problem::new(
                    ProblemKind::ConfigInvalid,
                    Some(&path),
                    format!("the repo's listing cannot be read ({why}); sizes were not checked against it"),
                )),
            }
        }
        details
    }

    /// Reads the listing of a repo at `path`, relative to the store's root; its paths are safe to use below a snapshot.
    ///
    /// # Errors
    /// Why it cannot be read or used.
    pub fn read_listing(&self, path: &str) -> Result<Listing, String> {
        let file = self.root().open_below(path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.take(LISTING_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > LISTING_LIMIT {
            return Err("it is larger than 64 MiB".to_owned());
        }
        let raw: RawListing = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if let Some(bad) = raw.files.keys().find(|path| !is_safe_relative(path)) {
            return Err(format!("it names `{}`, which leads out of the model", bad.escape_debug()));
        }
        Ok(Listing { files: raw.files })
    }

    /// Files that `hf download --local-dir` recorded in a model's directory and that are not there, by path.
    pub fn gone_since_download(&self, model: &FoundModel) -> Vec<String> {
        /// As deep as a repo's directories are followed.
        const DEPTH: usize = 16;
        fn look(dir: &DirHandle, place: &str, depth: usize, found: &mut Vec<String>) {
            for entry in dir.list().unwrap_or_default() {
                let Some(name) = entry.name() else { continue };
                if entry.stat.kind == EntryKind::Dir && depth < DEPTH {
                    if let Ok(below) = dir.open_dir(&entry.raw_name) {
                        look(&below, &format!("{place}{name}/"), depth + 1, found);
                    }
                } else if let (EntryKind::File, Some(of)) = (entry.stat.kind, name.strip_suffix(".metadata"))
                {
                    found.push(format!("{place}{of}"));
                }
            }
        }
        let mut found = Vec::new();
        if let Some(records) = &model.download_records
            && let Ok(dir) = self.root().open_dir_below(&format!("{records}/download"))
        {
            look(&dir, "", 0, &mut found);
        }
        // Other models in the same directory have theirs there, too.
        let is_there = |path: &String| {
            let place = if model.key.is_empty() { path.clone() } else { format!("{}/{path}", model.key) };
            // What cannot be asked is not said to be gone.
            let gone = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
            model.file(path).is_some() || !self.root().stat_below(&place).err().is_some_and(gone)
        };
        found.retain(|path| !is_there(path));
        found.sort_unstable();
        found
    }

    fn local_download(
        &self,
        model: &FoundModel,
        records: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<LocalDownload> {
        let dir = self.root().open_dir_below(&format!("{records}/download")).ok()?;
        let mut found = LocalDownload::default();
        for file in &model.files {
            let mut parts: Vec<&str> = file.path.split('/').collect();
            let name = CString::new(format!("{}.metadata", parts.pop()?)).ok()?;
            let below = match parts.as_slice() {
                [] => None,
                parts => match dir.open_dir_below(&parts.join("/")) {
                    Ok(below) => Some(below),
                    Err(_) => continue,
                },
            };
            let here = below.as_ref().unwrap_or(&dir);
            match here.stat_of(&name) {
                Ok(stat) if stat.kind == EntryKind::File && stat.size <= RECORD_LIMIT => {}
                _ => continue,
            }
            let mut text = String::new();
            let read =
                here.open_file(&name).and_then(|opened| opened.take(RECORD_LIMIT).read_to_string(&mut text));
            let mut lines = text.lines().map(str::trim);
            match (read, lines.next(), lines.next()) {
                (Ok(_), Some(commit), Some(etag)) if is_hex(commit, 40) && !etag.is_empty() => {
                    let timestamp = lines.next().and_then(|line| line.parse().ok());
                    found.files.insert(
                        file.path.clone(),
                        LocalFile { commit: commit.to_owned(), etag: etag.to_owned(), timestamp },
                    );
                }
                _ => problems.push(Problem::new(
                    ProblemKind::ConfigInvalid,
                    Some(&file.path),
                    "its download record is not the three lines that huggingface_hub writes; it was ignored",
                )),
            }
        }
        (!found.files.is_empty()).then_some(found)
    }
}

pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
