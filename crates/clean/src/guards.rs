//! What keeps a model whatever the user's filters say, as far as the disk itself tells: who else needs it now.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxman_manifest::HealthStatus;
use mlxman_manifest::registry::{Survey, SurveyedModel};
use mlxman_store::{FoundModel, OpenFiles, ProblemKind, Scan, watch};

use crate::plan::{Keep, Rule};

/// A snapshot written this much later than any ref was asked for by its commit. What is written in one go, such as a
/// copy of a store, does not count.
const AFTER_REFS_NS: i64 = 10 * 60 * 1_000_000_000;

/// What is asked once for all models.
pub(crate) struct Guards {
    open: OpenFiles,
    /// Where links lead that leave their store.
    linked: Vec<Link>,
}

/// A link that is not a snapshot's own link to its blob.
#[derive(Clone)]
struct Link {
    store: String,
    /// The model that has it.
    key: Option<String>,
    path: PathBuf,
}

/// How long a link's end is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

impl Guards {
    pub(crate) fn of(survey: &Survey) -> Self {
        let mut linked = Vec::new();
        for store in &survey.stores {
            let Ok(scan) = &store.scan else { continue };
            linked.extend(scan.outside().map(|(key, path)| Link {
                store: store.spec.id(),
                key: key.map(str::to_owned),
                path: path.to_owned(),
            }));
        }
        // A link may lead on through another link: its end is needed as well. A volume that does not answer is not
        // waited for; then the text is all there is.
        let paths: Vec<PathBuf> = linked.iter().map(|link| link.path.clone()).collect();
        let ends = watch(vec![paths], PATIENCE, |paths: Vec<PathBuf>, _| {
            paths.iter().map(|path| path.canonicalize().ok()).collect::<Vec<_>>()
        });
        if let Some(Ok(ends)) = ends.into_iter().next() {
            let more: Vec<Link> = linked
                .iter()
                .zip(ends)
                .filter_map(|(link, end)| Some(Link { path: end?, ..link.clone() }))
                .collect();
            linked.extend(more);
        }
        Guards { open: OpenFiles::now(), linked }
    }

    /// Why the model is kept, if it is.
    pub(crate) fn keep(
        &self,
        found: &FoundModel,
        models: &[(&FoundModel, &SurveyedModel)],
        scan: &Scan,
        rule: Rule,
    ) -> Option<(Keep, String)> {
        if found.files.iter().any(|file| self.open.has(file.stat.dev, file.stat.ino)) {
            return Some((Keep::InUse, "a running program has one of its files open".to_owned()));
        }
        if let Some(repo) = found.key.split('/').next().filter(|_| found.repo.is_some())
            && scan.is_locked(repo)
        {
            return Some((Keep::InUse, "a download holds a lock of its repo".to_owned()));
        }
        let own = scan.spec.id();
        let from_another = |link: &&Link| link.store != own || link.key.as_deref() != Some(&found.key);
        if let Some(link) =
            self.linked.iter().filter(from_another).find(|link| needs(&link.path, found, scan))
        {
            return Some((Keep::LinkedFrom, format!("a link in {} leads to it", link.store)));
        }
        if found.problems.iter().any(|problem| problem.kind == ProblemKind::Unreadable) {
            return Some((
                Keep::Unreadable,
                "not all of it can be read, so not all of it could go".to_owned(),
            ));
        }
        if rule == Rule::Detached { superseded(found, models) } else { None }
    }
}

/// Whether a link that leads to `path` needs the model.
fn needs(path: &Path, found: &FoundModel, scan: &Scan) -> bool {
    let dir = scan.dir_of(found);
    if path.starts_with(&dir)
        || (dir.starts_with(path) && path.starts_with(scan.spec.root()) && path != scan.spec.root())
    {
        return true;
    }
    path.strip_prefix(scan.spec.root())
        .ok()
        .and_then(Path::to_str)
        .is_some_and(|inside| found.files.iter().any(|file| file.real == inside))
}

/// Why a snapshot that no ref names is no leftover of the one that a ref names, if it is none.
fn superseded(found: &FoundModel, models: &[(&FoundModel, &SurveyedModel)]) -> Option<(Keep, String)> {
    let repo = found.repo.as_ref()?;
    let named: Vec<_> = models
        .iter()
        .filter(|(other, _)| {
            other.repo.as_ref().is_some_and(|other| {
                other.kind == repo.kind && other.id == repo.id && other.detached() == Some(false)
            })
        })
        .collect();
    let loads = named.iter().any(|(_, known)| known.summary.health == HealthStatus::Complete);
    if !named.is_empty() && !loads {
        let reason = "the snapshot that a ref names is not whole; this one may be the only one that loads";
        return Some((Keep::NewerIncomplete, reason.to_owned()));
    }
    let (_, written) = found.dirs.first()?;
    let refs = repo.refs_changed_ns?;
    (written.mtime_ns > refs.saturating_add(AFTER_REFS_NS)).then(|| {
        let reason = "it was fetched after the repo's refs were last written: \
                      somebody asked for this revision by its commit";
        (Keep::AskedForByCommit, reason.to_owned())
    })
}
