//! From what was found of a model's files to a verdict.

use chrono::{DateTime, Utc};
use mlxman_manifest::{
    ChangedFile, ChangedSince, DamagedFile, DamagedHow, Integrity, MissingFile, Verdict, Verification,
    VerifiedLevel,
};
use mlxman_store::{ProblemKind, Severity};

use super::expected::{Expected, how};
use super::fetch::Origin;
use crate::structure::Structure;

/// What came of one file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// It is what it should be.
    Whole {
        /// When it was read.
        at: DateTime<Utc>,
        /// Whether that was now.
        now: bool,
    },
    /// It is not.
    Damaged { found: String, how: DamagedHow, expected: String, place: Option<(u64, u64)> },
    /// Somebody changed it.
    Changed(ChangedSince),
    /// There is nothing to compare with.
    Uncheckable,
    /// Its turn did not come.
    Unreached,
}

/// What a file that was read turned out to be, given its hash of the kind that is expected.
pub(super) fn of_read(
    expected: &Expected,
    size: u64,
    found: Option<&String>,
    place: Option<(u64, u64)>,
    at: DateTime<Utc>,
) -> Finding {
    let (Some((kind, hash)), Some(found)) = (&expected.hash, found) else { return Finding::Uncheckable };
    if found != hash {
        if let Some(since) = expected.changed {
            return Finding::Changed(since);
        }
        if let Some(listed) = expected.size.filter(|listed| *listed != size) {
            let (expected, found) = (format!("{listed} bytes"), format!("{size} bytes"));
            return Finding::Damaged { found, how: DamagedHow::Size, expected, place: None };
        }
        let (found, expected) = (found.clone(), hash.clone());
        return Finding::Damaged { found, how: how(*kind), expected, place };
    }
    if let Some(other) = &expected.other_blob {
        let (found, expected) = (found.clone(), other.clone());
        return Finding::Damaged { found, how: DamagedHow::WrongBlob, expected, place: None };
    }
    if let Some(listed) = expected.size.filter(|listed| *listed != size) {
        let (expected, found) = (format!("{listed} bytes"), format!("{size} bytes"));
        return Finding::Damaged { found, how: DamagedHow::Listing, expected, place: None };
    }
    Finding::Whole { at, now: true }
}

/// One file of a model, and what came of it.
pub(super) struct Row<'a> {
    pub(super) path: &'a str,
    pub(super) size: u64,
    /// Whether another name of the same content comes before it in the model.
    pub(super) again: bool,
    pub(super) finding: Finding,
}

/// What is known of a model beside its files.
pub(super) struct About<'a> {
    pub(super) structure: &'a Structure,
    /// What its download recorded and is not there. Whoever removed it may not have wanted it.
    pub(super) gone: &'a [String],
    pub(super) origin: Option<Origin<'a>>,
    pub(super) now: DateTime<Utc>,
    /// Whether there was a time limit: then what was not reached is what the next run begins with.
    pub(super) budget: bool,
}

impl About<'_> {
    /// The verdict on the model.
    pub(super) fn judge(&self, rows: &[Row<'_>]) -> Verification {
        let integrity = self.collect(rows);
        let structural = self.structural();
        let weights = |path: &str| {
            let path = path.to_ascii_lowercase();
            [".safetensors", ".gguf", ".npz", ".bin", ".pt", ".pth", ".onnx"]
                .iter()
                .any(|end| path.ends_with(end))
        };
        let changed = integrity.changed.iter();
        let (weights_changed, others_changed): (Vec<&ChangedFile>, Vec<&ChangedFile>) =
            changed.partition(|file| weights(&file.path) || file.since == ChangedSince::Reading);
        let nothing = integrity.read_files + integrity.skipped_files == 0;
        let unknown: Vec<&String> =
            integrity.uncheckable.iter().filter(|path| nothing || weights(path)).collect();
        let mut notes = Vec::new();
        let (verdict, reason) = if let Some(first) = integrity.damaged.first() {
            (Verdict::Fail, Some(and_more(damage(first), integrity.damaged.len() + integrity.missing.len())))
        } else if let Some(first) = integrity.missing.first() {
            let place = first.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
            let fetch = first.fetch_again.as_ref().map(|fetch| format!(": {fetch}")).unwrap_or_default();
            (Verdict::Fail, Some(and_more(format!("{place}{}{fetch}", first.why), integrity.missing.len())))
        } else if let Some(first) = weights_changed.iter().find(|file| file.since == ChangedSince::Reading) {
            // What was looked at before that is not what is there.
            let why =
                format!("{} {}, and nothing says what it should be now", first.path, first.since.words());
            (Verdict::Skipped, Some(and_more(why, weights_changed.len())))
        } else if structural.is_some() {
            (Verdict::Fail, structural.clone())
        } else if let Some(first) = weights_changed.first() {
            let why =
                format!("{} {}, and nothing says what it should be now", first.path, first.since.words());
            (Verdict::Skipped, Some(and_more(why, weights_changed.len())))
        } else if let Some(first) = unknown.first() {
            let why = format!(
                "there is nothing to compare {first} with: `mlxman sync` takes hashes that later checks compare with"
            );
            (Verdict::Skipped, Some(and_more(why, unknown.len())))
        } else if integrity.unreached_files > 0 {
            let why = if self.budget { "the time was over before" } else { "the run was stopped before" };
            let of = integrity.files;
            (
                Verdict::Skipped,
                Some(format!("{why} {} of its {of} files were read", integrity.unreached_files)),
            )
        } else {
            (Verdict::Pass, None)
        };
        if let Some(first) = others_changed.first() {
            notes.push(and_more(format!("{} {}", first.path, first.since.words()), others_changed.len()));
        }
        if let Some(first) = self.gone.first() {
            notes.push(and_more(format!("{first} was downloaded with it, and is gone"), self.gone.len()));
        }
        let unknown = integrity.uncheckable.len();
        if let Some(first) = integrity.uncheckable.first().filter(|_| verdict == Verdict::Pass) {
            notes.push(and_more(format!("there is nothing to compare {first} with"), unknown));
        }
        let passed = (structural.is_none() && verdict != Verdict::Pass).then_some(VerifiedLevel::Structure);
        Verification {
            reason,
            passed,
            notes,
            integrity: Some(integrity),
            ..Verification::new(VerifiedLevel::Integrity, verdict, self.now, self.structure.stamp.clone())
        }
    }

    /// What the files are, counted.
    fn collect(&self, rows: &[Row<'_>]) -> Integrity {
        let mut all = Integrity::default();
        let fetch = |path: Option<&str>| self.origin.as_ref().map(|origin| origin.fetch(path));
        for Row { path, size, again, finding } in rows {
            // What two names share is read once, and counted once.
            let (one, bytes) = if *again { (0, 0) } else { (1, *size) };
            all.files += one;
            all.bytes += bytes;
            match finding {
                Finding::Whole { at, now } => {
                    if *now {
                        all.read_files += one;
                        all.read_bytes += bytes;
                    } else {
                        all.skipped_files += one;
                        all.skipped_bytes += bytes;
                    }
                    all.oldest_check = Some(all.oldest_check.map_or(*at, |oldest| oldest.min(*at)));
                }
                Finding::Damaged { found, how, expected, place } => {
                    all.read_files += one;
                    all.read_bytes += bytes;
                    all.damaged.push(DamagedFile {
                        path: (*path).to_owned(),
                        expected: expected.clone(),
                        found: found.clone(),
                        how: *how,
                        bytes_from: place.map(|(from, _)| from),
                        bytes_to: place.map(|(_, to)| to),
                        fetch_again: fetch(Some(path)),
                    });
                }
                Finding::Changed(since) => {
                    all.changed.push(ChangedFile { path: (*path).to_owned(), since: *since });
                }
                Finding::Uncheckable => all.uncheckable.push((*path).to_owned()),
                Finding::Unreached => {
                    all.unreached_files += one;
                    all.unreached_bytes += bytes;
                }
            }
        }
        let is_missing = |kind| {
            matches!(
                kind,
                ProblemKind::DanglingLink
                    | ProblemKind::MissingShard
                    | ProblemKind::MissingComponent
                    | ProblemKind::MissingRequiredFile
                    | ProblemKind::NoWeights
            )
        };
        let problems = &self.structure.observation.health.problems;
        for problem in problems.iter().filter(|problem| is_missing(problem.kind)) {
            // A missing component is a directory.
            let file = problem.path.as_deref().filter(|_| problem.kind != ProblemKind::MissingComponent);
            all.missing.push(MissingFile {
                path: problem.path.clone(),
                why: problem.message.clone(),
                fetch_again: fetch(file),
            });
        }
        all
    }

    /// Why the structure fails. Sizes are looked at here file by file, with what is known of each.
    fn structural(&self) -> Option<String> {
        let failure = self.structure.failure.clone()?;
        let problems = &self.structure.observation.health.problems;
        if problems.iter().all(|problem| problem.kind != ProblemKind::SizeMismatch) {
            return Some(failure);
        }
        let other = problems.iter().find(|problem| {
            problem.severity == Severity::Error && problem.kind != ProblemKind::SizeMismatch
        })?;
        let place = other.path.as_deref().map(|path| format!("{path}: ")).unwrap_or_default();
        Some(format!("{place}{}", other.message))
    }
}

/// A damage, in a sentence.
fn damage(file: &DamagedFile) -> String {
    let DamagedFile { path, expected, found, how, .. } = file;
    let place = match (file.bytes_from, file.bytes_to) {
        (Some(from), Some(to)) => format!(" in bytes {from}-{to}"),
        _ => String::new(),
    };
    let what = match how {
        DamagedHow::Sha256 => format!("is damaged{place}: its SHA-256 should be {expected}, and is {found}"),
        DamagedHow::GitSha1 => {
            format!("is damaged{place}: its git SHA-1 should be {expected}, and is {found}")
        }
        DamagedHow::Blake3 => {
            format!(
                "is damaged{place}: its BLAKE3 was {expected} and is {found}, though nobody wrote to it since"
            )
        }
        DamagedHow::Size => format!("is damaged: it should have {expected}, and has {found}"),
        DamagedHow::WrongBlob => {
            format!("leads to the blob {found}, and the repo's listing names {expected}")
        }
        DamagedHow::Listing => format!(
            "is what its name says, with {found}, and the repo's listing says {expected}: the listing is at fault"
        ),
        DamagedHow::Unreadable => format!("cannot be read: {found}"),
    };
    let fetch = match (&file.fetch_again, how) {
        (_, DamagedHow::Unreadable) => "; check its permissions, and the disk".to_owned(),
        (Some(command), _) => format!("; fetch it again with `{command}`"),
        (None, _) => "; get the file again from where it came".to_owned(),
    };
    format!("{path} {what}{fetch}")
}

fn and_more(first: String, count: usize) -> String {
    match count {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}
