//! One snapshot: a directory of links to blobs.

use std::io::Read;

use super::super::{certain_of, is_desktop_noise};
use super::Around;
use crate::access::{DirHandle, Entry, EntryKind, Stat};
use crate::links::LooseLink;
use crate::problem::{Problem, ProblemKind};
use crate::scan::{Blob, FileEntry, Link, StrayItem};

/// A repo's own blob.
pub(super) struct RepoBlob {
    pub(super) stat: Stat,
    pub(super) certain: u64,
    pub(super) place: Place,
}

/// Where a blob's bytes are.
pub(super) enum Place {
    /// In the repo's `blobs`.
    Here,
    /// In the shared blob store: the link to there, and the payload's index.
    Shared { target: String, payload: usize },
    /// It is a link that leads nowhere in this store.
    Broken { problem: ProblemKind, target: String },
}

/// A repo's blobs by name, sorted.
#[derive(Default)]
pub(super) struct Blobs(Vec<(String, RepoBlob)>);

impl Blobs {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Blobs(Vec::with_capacity(capacity))
    }

    /// Adds one. They come in the order of their names, as a directory's listing does.
    pub(super) fn push(&mut self, name: String, blob: RepoBlob) {
        debug_assert!(self.0.last().is_none_or(|(last, _)| *last < name), "{name} is out of order");
        self.0.push((name, blob));
    }

    /// The blob of that name, with its place among the blobs.
    pub(super) fn get(&self, name: &str) -> Option<(usize, &RepoBlob)> {
        let index = self.0.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok()?;
        Some((index, &self.0[index].1))
    }

    /// Name and blob at a place.
    pub(super) fn at(&self, index: usize) -> (&str, &RepoBlob) {
        let (name, blob) = &self.0[index];
        (name, blob)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What the walk of one snapshot collects.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<FileEntry>,
    pub(super) dirs: Vec<(String, Stat)>,
    pub(super) problems: Vec<Problem>,
    /// What lies in it and is no file of the model: links that lead nowhere, and the like.
    pub(super) rest: Vec<StrayItem>,
    /// Places of the repo's blobs that it uses.
    pub(super) uses: Vec<usize>,
    /// Files that hold the text of a link.
    pub(super) flattened: Vec<String>,
    /// Files elsewhere in the store that links lead to.
    pub(super) foreign: Vec<String>,
    /// Links to anything but the repo's own blobs.
    pub(super) links: Vec<LooseLink>,
}

pub(super) struct Walk<'a> {
    pub(super) around: &'a Around<'a>,
    /// The repo's directory, relative to the store's root.
    pub(super) repo: &'a str,
    pub(super) blobs: &'a Blobs,
    /// Whether the repo's blobs could be listed: if not, a blob that was not seen may be there all the same.
    pub(super) blobs_seen: bool,
    /// Whether something else stands where the repo's blobs should be: a link to them, mostly.
    pub(super) blobs_odd: bool,
}

/// Directories of a snapshot deeper than this are not entered.
const DEEPEST: u32 = 32;

/// Text this long or shorter may be a link that a copying program wrote out as a file.
const FLATTENED: std::ops::RangeInclusive<u64> = 40..=256;

impl Walk<'_> {
    /// Walks `dir`, which is `inside` the snapshot (empty for its top) and lies at `place` in the store.
    pub(super) fn walk(&self, dir: &DirHandle, inside: &str, place: &str, found: &mut Found, depth: u32) {
        let entries = match dir.list() {
            Ok(entries) => entries,
            Err(error) => return unreadable(if inside.is_empty() { "." } else { inside }, &error, found),
        };
        self.around.progress.step(entries.len() as u64);
        found.files.reserve(entries.len());
        for entry in entries {
            let rest = |link_target: Option<String>| StrayItem {
                path: format!("{place}/{}", entry.lossy_name()),
                stat: entry.stat,
                link_target,
            };
            let Some(name) = entry.name() else {
                found.rest.push(rest(None));
                if entry.stat.kind == EntryKind::Link {
                    found.links.push(LooseLink::new(place, dir.read_link_raw(&entry.raw_name)));
                }
                found.problems.push(Problem::new(
                    ProblemKind::NameNotUtf8,
                    Some(&entry.lossy_name()),
                    "its name is not UTF-8; it was counted but not read",
                ));
                continue;
            };
            let path = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            match entry.stat.kind {
                EntryKind::File if is_desktop_noise(name) => found.rest.push(rest(None)),
                EntryKind::Link => {
                    let target = dir.read_link(&entry.raw_name);
                    if target.is_err() {
                        found.links.push(LooseLink::new(place, dir.read_link_raw(&entry.raw_name)));
                    }
                    match self.link(&entry, &target, &path, place, found) {
                        Ok(file) => found.files.push(file),
                        Err(problem) => {
                            found.problems.push(problem);
                            found.rest.push(rest(target.ok()));
                        }
                    }
                }
                EntryKind::File => match self.file(dir, &entry, &path, place, found) {
                    Ok(file) => found.files.push(file),
                    Err(problem) => {
                        found.problems.push(problem);
                        found.rest.push(rest(None));
                    }
                },
                EntryKind::Dir if depth < DEEPEST => match dir.open_dir(&entry.raw_name) {
                    Ok(below) => {
                        let real = format!("{place}/{name}");
                        found.dirs.push((real.clone(), entry.stat));
                        self.walk(&below, &path, &real, found, depth + 1);
                    }
                    Err(error) => {
                        found.rest.push(rest(None));
                        unreadable(&path, &error, found);
                    }
                },
                EntryKind::Unknown => {
                    found.rest.push(rest(None));
                    found.problems.push(Problem::new(
                        ProblemKind::Unreadable,
                        Some(&path),
                        "the system does not say what this is; check the permissions of its directory",
                    ));
                }
                EntryKind::Dir => {
                    found.rest.push(rest(None));
                    found.problems.push(Problem::new(
                        ProblemKind::Unreadable,
                        Some(&path),
                        format!(
                            "it is nested deeper than {DEEPEST} directories; what lies in it was not counted"
                        ),
                    ));
                }
                _ => {
                    found.rest.push(rest(None));
                    found.problems.push(Problem::new(
                        ProblemKind::LinkNotFollowed,
                        Some(&path),
                        "it is neither a file nor a link to a blob; it was not opened",
                    ));
                }
            }
        }
    }

    fn link(
        &self,
        entry: &Entry,
        target: &std::io::Result<String>,
        path: &str,
        place: &str,
        found: &mut Found,
    ) -> Result<FileEntry, Problem> {
        let problem = |kind, message: String| Err(Problem::new(kind, Some(path), message));
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                return problem(ProblemKind::Unreadable, format!("this link cannot be read: {error}"));
            }
        };
        let Some(real) = self.around.resolve(place, target) else {
            found.links.push(LooseLink::new(place, Ok(target.into())));
            return problem(
                ProblemKind::LinkOutsideStore,
                format!("it links to `{}`, outside the store; it was not followed", target.escape_debug()),
            );
        };
        let link = Link { target: target.clone(), stat: entry.stat };
        self.reach(path, place, real, link, found)
    }

    /// A file of the snapshot whose bytes should lie at `real`: the repo's blob, mostly.
    fn reach(
        &self,
        path: &str,
        place: &str,
        real: String,
        link: Link,
        found: &mut Found,
    ) -> Result<FileEntry, Problem> {
        let problem = |kind, message: String| Err(Problem::new(kind, Some(path), message));
        let path = || path.to_owned();
        let blob_name = real
            .strip_prefix(self.repo)
            .and_then(|rest| rest.strip_prefix("/blobs/"))
            .filter(|name| !name.contains('/'));
        if let Some(name) = blob_name {
            let Some((index, blob)) = self.blobs.get(name) else {
                return if self.blobs_odd {
                    problem(
                        ProblemKind::LinkNotFollowed,
                        format!(
                            "the repo's `blobs` should be a directory and is none; it was not followed, so nobody can \
                             tell whether its blob `{name}` is there"
                        ),
                    )
                } else if self.blobs_seen {
                    problem(
                        ProblemKind::DanglingLink,
                        format!("its blob `{name}` is not there; download the model again to mend it"),
                    )
                } else {
                    problem(
                        ProblemKind::Unreadable,
                        "the repo's blobs cannot be read, so nobody can tell whether its blob is there; \
                         check their permissions"
                            .to_owned(),
                    )
                };
            };
            found.uses.push(index);
            let (name, link) = (name.to_owned(), Some(link));
            return match &blob.place {
                Place::Here => Ok(FileEntry {
                    path: path(),
                    real,
                    stat: blob.stat,
                    certain: blob.certain,
                    link,
                    blob: Some(Blob { name, shared: None, link: None }),
                }),
                Place::Shared { target, payload } => {
                    let payload = self.around.shared.by_index(*payload);
                    Ok(FileEntry {
                        path: path(),
                        real: payload.path.clone(),
                        stat: payload.stat,
                        certain: payload.certain,
                        link,
                        blob: Some(Blob {
                            name,
                            shared: Some(payload.path.clone()),
                            link: Some(Box::new(Link { target: target.clone(), stat: blob.stat })),
                        }),
                    })
                }
                Place::Broken { problem: kind @ ProblemKind::DanglingLink, target } => problem(
                    *kind,
                    format!(
                        "its blob `{name}` links to `{}`, which is not there; download the model again to mend it",
                        target.escape_debug()
                    ),
                ),
                Place::Broken { problem: kind, target } => problem(
                    *kind,
                    format!(
                        "its blob `{name}` links to `{}`, which was not followed: \
                         a blob may only link into the shared blob store",
                        target.escape_debug()
                    ),
                ),
            };
        }
        // Elsewhere in the store: one hop, to a regular file. Whatever is there, it is somebody's who is linked to.
        found.links.push(LooseLink::new(place, Ok(link.target.clone().into())));
        match self.around.root.stat_below(&real) {
            Ok(stat) if stat.kind == EntryKind::File => {
                found.foreign.push(real.clone());
                Ok(FileEntry { path: path(), real, stat, certain: 0, link: Some(link), blob: None })
            }
            Ok(_) => problem(
                ProblemKind::LinkNotFollowed,
                "it links to something that is no regular file; only one hop is followed".to_owned(),
            ),
            Err(_) => problem(
                ProblemKind::DanglingLink,
                format!("it links to `{real}`, which is not there; download the model again to mend it"),
            ),
        }
    }

    /// A regular file in a snapshot: huggingface_hub puts the content itself there where links are not to be had.
    fn file(
        &self,
        dir: &DirHandle,
        entry: &Entry,
        path: &str,
        place: &str,
        found: &mut Found,
    ) -> Result<FileEntry, Problem> {
        if let Some(target) = flattened(dir, entry)
            && let Some(blob) = self.around.resolve(place, &target)
            && blob.strip_prefix(self.repo).is_some_and(|rest| rest.starts_with("/blobs/"))
        {
            found.flattened.push(path.to_owned());
            return self.reach(path, place, blob, Link { target, stat: entry.stat }, found);
        }
        let certain = certain_of(self.around.asks_extents, dir, entry);
        let real = format!("{place}/{}", entry.lossy_name());
        Ok(FileEntry { path: path.to_owned(), real, stat: entry.stat, certain, link: None, blob: None })
    }
}

fn unreadable(path: &str, error: &std::io::Error, found: &mut Found) {
    found.problems.push(Problem::new(
        ProblemKind::Unreadable,
        Some(path),
        format!("this directory cannot be read: {error}; check its permissions"),
    ));
}

/// The link that a copying program wrote out as the file `entry`, if it is one.
pub(super) fn flattened(dir: &DirHandle, entry: &Entry) -> Option<String> {
    if !FLATTENED.contains(&entry.stat.size) {
        return None;
    }
    let mut text = String::new();
    dir.open_file(&entry.raw_name).ok()?.take(*FLATTENED.end()).read_to_string(&mut text).ok()?;
    let up = text.trim_start_matches("../");
    let blob = up.strip_prefix("blobs/")?;
    let plain = up.len() < text.len() && blob.bytes().all(|byte| byte == b'/' || byte.is_ascii_hexdigit());
    plain.then_some(text)
}

/// One problem for all of a snapshot's flattened links.
pub(super) fn flattened_problem(paths: &[String]) -> Option<Problem> {
    let first = paths.first()?;
    Some(Problem::new(
        ProblemKind::FlattenedLink,
        Some(first),
        format!(
            "{} of its files hold the text of a link where the link should be: the store was copied by a program that \
             does not keep links, and no loader can use it like this; copy it again with `cp -a` or `rsync -a`",
            paths.len()
        ),
    ))
}
