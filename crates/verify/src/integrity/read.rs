//! Reading one content, once, for all the hashes that are wanted of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};

use mlxman_manifest::registry::{CHUNK, HashKind, Marks};
use mlxman_store::{FileEntry, Scan, Stat, mapped};

use super::hasher::Hasher;

/// How much is read at once; a part is a multiple of it.
pub(super) const PIECE: usize = 1 << 20;

/// How much of a file is mapped at once; a part is a multiple of it.
const WINDOW: usize = 16 << 20;

const _: () = assert!(CHUNK.is_multiple_of(WINDOW as u64) && WINDOW.is_multiple_of(PIECE));

/// What is smaller is copied: to map it would take longer.
const MAPPED: u64 = 1 << 20;

/// See [`Wanted::read`].
pub(super) type Step<'a> = dyn Fn(u64, Option<&[String]>) -> bool + 'a;

/// What is wanted of one content.
pub(super) struct Wanted<'a> {
    pub(super) scan: &'a Scan,
    pub(super) file: &'a FileEntry,
    /// Its hashes, in order; one at least.
    pub(super) kinds: &'a [HashKind],
    /// The marks of the content that it should be, and that one's hash: a damage is placed by them.
    pub(super) should: Option<(Marks, String)>,
    /// The marks up to where an earlier run came: reading goes on there, and then no damage is placed.
    pub(super) begun: Option<Marks>,
}

/// What reading gave.
#[derive(Debug)]
pub(super) enum Done {
    /// It was read to its end.
    Whole(Hashes),
    /// It is not the file that the walk saw, or it changed while it was read.
    Changed,
    /// Reading was stopped; these are the marks up to there.
    Stopped(Option<Marks>),
    /// It cannot be read.
    Failed(io::Error),
}

/// The hashes of a content.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    pub(super) by_kind: BTreeMap<HashKind, String>,
    /// Of the first of the kinds.
    pub(super) marks: Option<Marks>,
    /// The first and the last byte of what differs from the marks that it should have.
    pub(super) differs: Option<(u64, u64)>,
}

impl Wanted<'_> {
    /// Reads it. `step` is told how much was read since it was asked last, and the marks if there is a new one; it
    /// says whether to go on.
    pub(super) fn read(&self, buffer: &mut [u8], step: &Step<'_>) -> Done {
        match self.try_read(buffer, step) {
            Ok(done) => done,
            // What `Scan::open` says of a file that took another's place; a read never says so.
            Err(error) if error.kind() == io::ErrorKind::Other => Done::Changed,
            Err(error) => Done::Failed(error),
        }
    }

    fn try_read(&self, buffer: &mut [u8], step: &Step<'_>) -> io::Result<Done> {
        let mut file = self.scan.open(self.file)?;
        let size = self.file.stat.size;
        if !Stat::of_file(&file)?.is_unchanged(&self.file.stat) {
            return Ok(Done::Changed);
        }
        // The kernel may read ahead further than usual; where it does not take the advice, nothing is lost.
        let _ = advise(&file);
        let mut progress = self.begin();
        let begun_at = progress.at;
        // What is read again counts once.
        let again = Cell::new(0);
        let step = &|bytes: u64, marks: Option<&[String]>| {
            let known = bytes.min(again.get());
            again.set(again.get() - known);
            step(bytes - known, marks)
        };
        let mut flow = Flow::Goes;
        if size >= MAPPED {
            while flow == Flow::Goes && progress.at < size {
                let (at, len) = (progress.at, (size - progress.at).min(WINDOW as u64) as usize);
                let pieces = |bytes: &[u8]| {
                    bytes
                        .chunks(PIECE)
                        .map(|piece| progress.take(piece, step))
                        .find(|flow| *flow != Flow::Goes)
                };
                match mapped(&file, at, len, pieces) {
                    Ok(went) => flow = went.unwrap_or(Flow::Goes),
                    // It is cut, or the disk has an error, or no file can be mapped here: reading it will tell.
                    Err(_) => {
                        again.set(progress.at - begun_at);
                        progress = self.begin();
                        break;
                    }
                }
            }
        }
        io::Seek::seek(&mut file, io::SeekFrom::Start(progress.at))?;
        while flow == Flow::Goes {
            match fill(&mut file, buffer)? {
                0 => break,
                read => flow = progress.take(&buffer[..read], step),
            }
        }
        match flow {
            Flow::Stops => return Ok(Done::Stopped(progress.marks())),
            Flow::Grows => return Ok(Done::Changed),
            Flow::Goes if progress.at != size || !Stat::of_file(&file)?.is_unchanged(&self.file.stat) => {
                return Ok(Done::Changed);
            }
            Flow::Goes => {}
        }
        Ok(Done::Whole(progress.finish()))
    }

    /// At the beginning, or where an earlier run came to.
    fn begin(&self) -> Progress<'_> {
        let size = self.file.stat.size;
        let begun = self.begun.as_ref().filter(|begun| {
            self.kinds == [begun.kind] && (begun.at.len() as u64).saturating_mul(CHUNK) < size
        });
        let mut marks: Vec<String> = begun.map(|begun| begun.at.clone()).unwrap_or_default();
        let mut hashers: Vec<Hasher> = Vec::with_capacity(self.kinds.len());
        for kind in self.kinds {
            match Hasher::behind(*kind, size, &marks) {
                Some(hasher) => hashers.push(hasher),
                None => {
                    marks.clear();
                    hashers = vec![Hasher::new(*kind, size)];
                }
            }
        }
        let should = self.should.as_ref().filter(|(should, _)| Some(&should.kind) == self.kinds.first());
        let place = Place::new(should.filter(|_| marks.is_empty()), size);
        Progress { kinds: self.kinds, size, at: marks.len() as u64 * CHUNK, hashers, marks, place }
    }
}

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Goes,
    /// It was told to stop.
    Stops,
    /// There is more than there was.
    Grows,
}

/// How far a content was read.
struct Progress<'a> {
    kinds: &'a [HashKind],
    size: u64,
    at: u64,
    hashers: Vec<Hasher>,
    marks: Vec<String>,
    place: Place<'a>,
}

impl Progress<'_> {
    /// Takes the next piece, which ends where a part does or before.
    fn take(&mut self, piece: &[u8], step: &Step<'_>) -> Flow {
        let part_ends =
            self.at > 0 && self.at.is_multiple_of(CHUNK) && self.at / CHUNK > self.marks.len() as u64;
        if part_ends {
            for (index, hasher) in self.hashers.iter_mut().enumerate() {
                let mark = hasher.mark();
                if index == 0 {
                    self.place.part_ends(&mark);
                    self.marks.push(mark);
                }
            }
        }
        self.hashers.iter_mut().for_each(|hasher| hasher.update(piece));
        self.place.update(piece);
        self.at += piece.len() as u64;
        if self.at > self.size {
            return Flow::Grows;
        }
        let goes_on = step(piece.len() as u64, part_ends.then_some(self.marks.as_slice()));
        if goes_on || self.at >= self.size { Flow::Goes } else { Flow::Stops }
    }

    /// Where a later run can go on: with one kind of hash only.
    fn marks(self) -> Option<Marks> {
        let [kind] = self.kinds else { return None };
        (!self.marks.is_empty()).then_some(Marks { kind: *kind, at: self.marks })
    }

    fn finish(self) -> Hashes {
        let by_kind = self.kinds.iter().copied().zip(self.hashers.into_iter().map(Hasher::finish)).collect();
        let first = self.kinds.first().filter(|_| !self.marks.is_empty());
        Hashes {
            by_kind,
            marks: first.map(|kind| Marks { kind: *kind, at: self.marks }),
            differs: self.place.finish(),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn advise(file: &std::fs::File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn advise(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

/// As much as there is, up to the whole buffer.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Finds where a content differs from the one that has these marks, and this hash.
struct Place<'a> {
    should: Option<&'a (Marks, String)>,
    size: u64,
    /// Parts that ended.
    parts: usize,
    /// Once the content differs: a hasher that stands where the other content's stood at the beginning of this part.
    own: Option<Hasher>,
    first: Option<usize>,
    last: usize,
}

impl<'a> Place<'a> {
    fn new(should: Option<&'a (Marks, String)>, size: u64) -> Self {
        // Marks of a content of another length say nothing of this one.
        let parts = usize::try_from(size.saturating_sub(1) / CHUNK).unwrap_or(usize::MAX);
        let should = should.filter(|(marks, _)| marks.at.len() == parts && parts > 0);
        Place { should, size, parts: 0, own: None, first: None, last: 0 }
    }

    fn update(&mut self, piece: &[u8]) {
        if let Some(own) = &mut self.own {
            own.update(piece);
        }
    }

    /// A part ends, and the content's hasher has come to `mark`.
    fn part_ends(&mut self, mark: &str) {
        let Some((should, _)) = self.should else { return };
        let Some(expected) = should.at.get(self.parts) else { return };
        let differs = match self.own.take() {
            Some(mut own) => own.mark() != *expected,
            None => mark != expected,
        };
        if differs {
            self.first.get_or_insert(self.parts);
            self.last = self.parts;
        }
        self.parts += 1;
        if self.first.is_some() {
            self.own = Hasher::behind(should.kind, self.size, &should.at[..self.parts]);
        }
    }

    /// The first and the last byte of the parts that differ, where the hashes of the whole do.
    fn finish(self) -> Option<(u64, u64)> {
        let (_, hash) = self.should?;
        let ends_well = self.own.is_some_and(|own| own.finish() == *hash);
        // If no part before it does, the last one differs.
        let first = self.first.unwrap_or(self.parts);
        let last = if ends_well { self.last } else { self.parts };
        let end = (last as u64 + 1).saturating_mul(CHUNK).min(self.size);
        Some((first as u64 * CHUNK, end.saturating_sub(1)))
    }
}
