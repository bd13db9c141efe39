//! What keeps a candidate whatever the user's filters say, as far as the disk itself tells: who else needs it now. Every
//! candidate is asked about here, whether it is a model or not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use mlxman_manifest::registry::{Survey, SurveyedModel};
use mlxman_store::{
    FileId, FoundModel, Held, OpenFiles, ProblemKind, Scan, ScanError, StoreKind, StoreSpec, Stray, StrayItem,
};

use crate::plan::{Keep, Rule};
use crate::reach::{Area, Reach};
use crate::replaced::superseded;

/// What is asked once for all candidates.
pub(crate) struct Guards {
    open: OpenFiles,
    reach: Reach,
    /// Whether a repo's locks are held, by store and directory.
    locks: RefCell<HashMap<(usize, String), Held>>,
    /// The roots of all known stores.
    roots: Vec<PathBuf>,
}

/// What is asked about a model, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Whether a program has one of its files open.
    OpenFiles,
    /// Whether a download holds a lock of its repo.
    Locks,
    /// The same for the blobs that it shares.
    SharedLocks,
    /// Whether another store lies in it.
    Stores,
    /// Whether a link leads to it.
    Links,
    /// Whether all of it can be read.
    Readable,
    /// Whether the snapshot that a ref names has all that it has.
    Replaced,
}

impl Guard {
    pub(crate) const ALL: [Guard; 7] = [
        Guard::OpenFiles,
        Guard::Locks,
        Guard::SharedLocks,
        Guard::Stores,
        Guard::Links,
        Guard::Readable,
        Guard::Replaced,
    ];
}

/// A store of the plan.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    /// Its place in the survey.
    pub(crate) index: usize,
    /// Its scan.
    pub(crate) scan: &'a Scan,
}

impl Guards {
    /// Asks for all stores of a survey; links in `others` count as well.
    pub(crate) fn of(survey: &Survey, others: &[(StoreSpec, Result<Scan, ScanError>)]) -> Self {
        let asked: Vec<Option<&Scan>> = survey.stores.iter().map(|store| store.scan.as_ref().ok()).collect();
        let mut roots: Vec<&StoreSpec> = survey.stores.iter().map(|store| &store.spec).collect();
        roots.extend(others.iter().map(|(spec, _)| spec));
        let others = others.iter().filter_map(|(_, scan)| scan.as_ref().ok());
        let linking: Vec<&Scan> = asked.iter().copied().flatten().chain(others).collect();
        let roots = roots.iter().map(|spec| spec.root().to_owned()).collect();
        Guards {
            open: OpenFiles::now(),
            reach: Reach::of(&asked, &linking),
            locks: RefCell::default(),
            roots,
        }
    }

    /// Stores with links of which nobody can tell where they lead.
    pub(crate) fn unanswered(&self) -> &[String] {
        &self.reach.unanswered
    }

    /// Why a model is kept, if it is.
    pub(crate) fn keep_model(
        &self,
        of: Of<'_>,
        model: (&FoundModel, &SurveyedModel),
        models: &[(&FoundModel, &SurveyedModel)],
        rule: Rule,
    ) -> Option<(Keep, String)> {
        Guard::ALL.into_iter().find_map(|guard| self.ask(guard, of, model, models, rule))
    }

    /// What one guard says of a model.
    pub(crate) fn ask(
        &self,
        guard: Guard,
        of: Of<'_>,
        (found, known): (&FoundModel, &SurveyedModel),
        models: &[(&FoundModel, &SurveyedModel)],
        rule: Rule,
    ) -> Option<(Keep, String)> {
        let repo = found.key.split('/').next().filter(|_| found.repo.is_some());
        match guard {
            Guard::OpenFiles => {
                let is_open = found.files.iter().any(|file| self.open.has(file.stat.dev, file.stat.ino));
                is_open.then(|| (Keep::InUse, "a running program has one of its files open".to_owned()))
            }
            Guard::Locks => repo.and_then(|repo| self.locked(of, repo)),
            Guard::SharedLocks => {
                let mut shared = found.files.iter().filter_map(|file| file.blob.as_ref()?.shared.as_deref());
                shared.find_map(|path| shared_lock(of.scan, path))
            }
            Guard::Stores => self.store_inside(of, found),
            Guard::Links => self.linked(&area_of_model(of, found, repo), of.scan),
            Guard::Readable => {
                let unread = |kind| {
                    matches!(
                        kind,
                        ProblemKind::Unreadable | ProblemKind::NameNotUtf8 | ProblemKind::UnsafeName
                    )
                };
                found.problems.iter().any(|problem| unread(problem.kind)).then(|| {
                    let reason = "not all of it can be read, so not all of it could go";
                    (Keep::Unreadable, reason.to_owned())
                })
            }
            Guard::Replaced if rule == Rule::Detached => {
                let beside = models.get(of.scan.snapshots_beside(found)).unwrap_or(models);
                superseded(found, known, beside)
            }
            Guard::Replaced => None,
        }
    }

    /// Whether another store, or a trash, lies in the model's directory: what is in it has words and locks of its own.
    fn store_inside(&self, of: Of<'_>, found: &FoundModel) -> Option<(Keep, String)> {
        let dir = of.scan.dir_of(found);
        let own = of.scan.spec.root();
        if let Some(root) = self.roots.iter().find(|root| *root != own && root.starts_with(&dir)) {
            let reason = format!("another store lies in it: {}", root.display());
            return Some((Keep::HoldsStore, reason));
        }
        let is_trash = |path: &str| path.split('/').any(|part| part == mlxman_store::TRASH);
        let trash = found.files.iter().find(|file| is_trash(&file.path))?;
        let reason = format!("a trash lies in it ({}): it is a store of its own, or holds one", trash.path);
        Some((Keep::HoldsStore, reason))
    }

    /// Why what is no model is kept, if it is.
    pub(crate) fn keep_stray(&self, of: Of<'_>, stray: &Stray) -> Option<(Keep, String)> {
        let items = || stray.items.iter().chain(&stray.payload);
        // A lock file is asked whether it is held, not whether somebody has it open.
        let is_open =
            |item: &StrayItem| self.open.has(item.stat.dev, item.stat.ino) && !item.path.ends_with(".lock");
        if items().any(is_open) {
            return Some((Keep::InUse, "a running program has it open".to_owned()));
        }
        let path = stray.problem.path.as_deref().unwrap_or_default();
        let repo = path.strip_prefix(".locks/").unwrap_or(path).split('/').next().unwrap_or_default();
        if of.scan.spec.kind() == StoreKind::Hub {
            let shared = items().map(|item| item.path.as_str()).filter(|path| path.starts_with("blobs/"));
            let kept = if repo == "blobs" { None } else { self.locked(of, repo) };
            if let Some(kept) =
                kept.or_else(|| shared.into_iter().find_map(|path| shared_lock(of.scan, path)))
            {
                return Some(kept);
            }
        }
        let whole = matches!(stray.problem.kind, ProblemKind::RepoWithoutSnapshot | ProblemKind::StaleLocks);
        let area = Area {
            store: of.index,
            dir: whole.then_some(path),
            files: items().map(|item| item.path.as_str()).collect(),
            ids: items().map(|item| (item.stat.dev, item.stat.ino)).chain(id_at(of.scan, path)).collect(),
            repo: None,
        };
        self.linked(&area, of.scan)
    }

    /// Whether a link leads to it, or none can tell.
    fn linked(&self, area: &Area<'_>, scan: &Scan) -> Option<(Keep, String)> {
        if let Some(store) = self.reach.leads_to(area, scan) {
            return Some((Keep::LinkedFrom, format!("a link in {store} leads to it")));
        }
        let store = self.reach.unanswered.first()?;
        let reason =
            format!("a link in {store} could not be followed, so nobody can tell whether it leads here");
        Some((Keep::Unreadable, reason))
    }

    /// Asks about the repos of many models at once, which takes less time than one after the other.
    pub(crate) fn ask_locks<'a>(&self, of: Of<'_>, models: impl Iterator<Item = &'a FoundModel>) {
        let repos =
            models.filter(|found| found.repo.is_some()).filter_map(|found| found.key.split('/').next());
        let mut locks = self.locks.borrow_mut();
        let mut repos: Vec<&str> =
            repos.filter(|repo| !locks.contains_key(&(of.index, (*repo).to_owned()))).collect();
        repos.dedup();
        let held = of.scan.lock_of_repos(&repos);
        locks.extend(repos.into_iter().map(|repo| (of.index, repo.to_owned())).zip(held));
    }

    /// Whether a download works on the repo at `dir`.
    fn locked(&self, of: Of<'_>, dir: &str) -> Option<(Keep, String)> {
        let mut locks = self.locks.borrow_mut();
        match locks.entry((of.index, dir.to_owned())).or_insert_with(|| of.scan.lock_of_repo(dir)) {
            Held::No => None,
            Held::Yes => Some((Keep::InUse, "a download holds a lock of its repo".to_owned())),
            Held::Unknown => Some((
                Keep::Unreadable,
                "its repo's locks cannot be asked, so nobody can tell whether a download holds one"
                    .to_owned(),
            )),
        }
    }
}

fn shared_lock(scan: &Scan, path: &str) -> Option<(Keep, String)> {
    match scan.lock_beside(path) {
        Held::No => None,
        Held::Yes => Some((Keep::InUse, "a download holds the lock of its shared blob".to_owned())),
        Held::Unknown => Some((
            Keep::Unreadable,
            "the lock of its shared blob cannot be asked, so nobody can tell whether a download holds it"
                .to_owned(),
        )),
    }
}

fn area_of_model<'a>(of: Of<'_>, found: &'a FoundModel, repo: Option<&'a str>) -> Area<'a> {
    // A link that leads elsewhere in the store does not own what it leads to.
    let own = || found.files.iter().filter(|file| file.link.is_none() || file.blob.is_some());
    let links = found.files.iter().flat_map(|file| {
        let blob = file.blob.as_ref().and_then(|blob| blob.link.as_deref());
        file.link.iter().chain(blob).map(|link| link.stat)
    });
    let beside = found.records.iter().map(|item| item.stat);
    let dirs = found.dirs.iter().chain(&found.listing).map(|(_, stat)| *stat);
    let stats = own().map(|file| file.stat).chain(links).chain(beside).chain(dirs);
    let root = found.key.is_empty().then(|| id_at(of.scan, "")).flatten();
    Area {
        store: of.index,
        dir: Some(&found.key),
        files: own().map(|file| file.real.as_str()).collect(),
        ids: stats.map(|stat| (stat.dev, stat.ino)).chain(root).collect(),
        repo,
    }
}

/// Device and inode of what lies at a path, of the root where it is empty.
pub(crate) fn id_at(scan: &Scan, path: &str) -> Option<FileId> {
    let stat = if path.is_empty() { scan.root().stat() } else { scan.root().stat_below(path) };
    stat.ok().map(|stat| (stat.dev, stat.ino))
}
