//! Finding what is wrong, and what of it can be mended.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use mlxman_manifest::registry::{StoreProblem, StoreSurvey, Survey, SurveyedModel, unusable};
use mlxman_manifest::{Manifest, inspect};
use mlxman_store::{
    FoundModel, Held, Listing, Problem, ProblemKind, Progress, RepoKind, Scan, Severity, StoreKind, Stray,
};

use super::commands::{Where, quoted};
use super::links::Listed;
use super::{
    Finding, REPAIRS_VERSION, Repair, RepairChange, RepairKind, RepairStore, Repairs, RepairsAsked, index,
    links, refs, sharing,
};
use crate::plan::{Candidate, Plan, Rule};

/// What removes leftovers of a kind in one repo of `store`, and nothing else; it shows them first, and asks. None where a
/// filter cannot name the repo alone: names of data sets are those of models, too.
fn clean(kind: ProblemKind, store: &str, dir: Option<&str>, repo: Option<&str>) -> Option<String> {
    let plain = |repo: &&str| repo.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    let repo = repo.filter(plain).filter(|_| dir.and_then(kind_of) == Some(RepoKind::Model))?;
    let (policies, filter) = match kind {
        ProblemKind::PartialDead => ("--partials", ""),
        ProblemKind::OrphanBlob => ("--orphans", ""),
        // What lies in it goes before it does.
        ProblemKind::RepoWithoutSnapshot => ("--broken --orphans --partials", ""),
        ProblemKind::StaleLocks => ("--broken", " --filter problem=stale_locks"),
        _ => return None,
    };
    let (store, models) = (quoted(store), quoted(&format!("--models={repo}")));
    Some(format!("mlxman clean apply --no-policies {policies} --store {store} {models}{filter}"))
}

impl Repairs {
    /// Looks at the stores of a survey. Nothing is touched.
    pub fn of(survey: &Survey, asked: RepairsAsked<'_>) -> Self {
        let mut repairs = Repairs {
            schema_version: REPAIRS_VERSION,
            created_at: asked.now,
            generator: Manifest::generator(),
            stores: Vec::new(),
            findings: Vec::new(),
            useless_bytes: 0,
        };
        let mut useless = Useless::default();
        let of_registry = survey.unusable.iter().map(|(path, why)| unusable(path, why));
        repairs.findings.extend(of_registry.chain(survey.problems.iter().cloned()).map(of_store_problem));
        for store in &survey.stores {
            let mut found = match &store.scan {
                Ok(scan) => {
                    let removals = Removals::of(asked.removals, &store.spec.id());
                    let of = OfStore { scan, store, asked, removals, locks: RefCell::default() };
                    of.findings(&mut useless)
                }
                Err(error) => vec![bare(&store.spec.id(), error.problem())],
            };
            found.sort_by(|a, b| {
                (b.problem.severity, &a.place, a.problem.kind).cmp(&(
                    a.problem.severity,
                    &b.place,
                    b.problem.kind,
                ))
            });
            let wrong = found.iter().filter(|one| one.problem.severity > Severity::Info).count();
            repairs.stores.push(RepairStore {
                store: store.spec.id(),
                usage: store.scan.as_ref().ok().map(Scan::usage),
                models: store.models.len() as u64,
                problems: wrong as u64,
            });
            repairs.findings.append(&mut found);
        }
        repairs.useless_bytes = useless.total();
        repairs
    }

    /// What can be mended.
    pub fn mendable(&self) -> impl Iterator<Item = (&Finding, &Repair)> {
        self.findings.iter().filter_map(|finding| Some((finding, finding.repair.as_ref()?)))
    }
}

/// Bytes that are of no use, each inode once.
#[derive(Default)]
struct Useless {
    files: HashMap<(u64, u64), u64>,
    more: u64,
}

impl Useless {
    fn total(&self) -> u64 {
        self.files.values().fold(self.more, |sum, bytes| sum.saturating_add(*bytes))
    }
}

fn bare(store: &str, problem: Problem) -> Finding {
    Finding {
        store: store.to_owned(),
        model: None,
        key: None,
        repo_id: None,
        place: problem.path.clone().unwrap_or_default(),
        problem,
        useless_bytes: 0,
        repair: None,
        held: None,
        command: None,
    }
}

fn of_store_problem(of: StoreProblem) -> Finding {
    let StoreProblem { store, problem, repo_id, .. } = of;
    Finding { repo_id, ..bare(&store, problem) }
}

/// What a preview would remove of one store, and what it keeps.
struct Removals<'a> {
    rows: HashMap<&'a str, &'a Candidate>,
    kept: HashMap<&'a str, &'a str>,
}

impl<'a> Removals<'a> {
    fn of(plan: &'a Plan, store: &str) -> Self {
        let rows = plan.candidates.iter().filter(|row| row.store == store);
        let rows = rows.filter(|row| matches!(row.rule, Rule::Empty | Rule::DeadPartial));
        let place = |row: &'a Candidate| row.key.as_deref().or(row.path.as_deref());
        let kept = plan.kept.iter().filter(|kept| kept.store == store);
        Removals {
            rows: rows.filter_map(|row| Some((place(row)?, row))).collect(),
            kept: kept.map(|kept| (kept.model.as_str(), kept.reason.as_str())).collect(),
        }
    }

    /// Removes what lies at `place`, where the preview would.
    fn repair(&self, place: &str, kind: RepairKind) -> Option<Repair> {
        let row = self.rows.get(place)?;
        let changes: Vec<RepairChange> =
            row.items.iter().map(|item| RepairChange::Take { item: item.clone() }).collect();
        let what = match kind {
            RepairKind::RemoveEmpty => "the empty directory",
            _ => "the partial file",
        };
        (!changes.is_empty()).then(|| Repair { kind, does: format!("remove {what} {place}"), changes })
    }
}

struct OfStore<'a> {
    scan: &'a Scan,
    store: &'a StoreSurvey,
    asked: RepairsAsked<'a>,
    removals: Removals<'a>,
    locks: RefCell<HashMap<String, Held>>,
}

impl OfStore<'_> {
    fn findings(&self, useless: &mut Useless) -> Vec<Finding> {
        let mut found = Vec::new();
        let listings = self.listings();
        for stray in &self.scan.strays {
            found.push(self.stray(stray, &listings, useless));
        }
        // A link is made once, whoever misses it.
        let made: HashSet<String> = found
            .iter()
            .filter_map(|finding| finding.repair.as_ref())
            .flat_map(|repair| &repair.changes)
            .filter_map(|change| match change {
                RepairChange::Link { path, .. } => Some(path.clone()),
                _ => None,
            })
            .collect();
        for (model, known) in self.scan.models.iter().zip(&self.store.models) {
            self.model(model, known, &made, &mut found, useless);
        }
        if let Some((problem, command)) = sharing::problem(&self.store.spec, self.scan.root()) {
            let finding = bare(&self.store.spec.id(), problem);
            found.push(Finding { command: Some(command), ..finding });
        }
        found
    }

    fn download(&self) -> Where<'_> {
        Where {
            store: &self.store.spec,
            default_hub: self.asked.default_hub.map(std::path::PathBuf::as_path),
        }
    }

    /// The listings of repos with blobs that nothing links to: of snapshots that are here, and of revisions that a ref
    /// still names.
    fn listings(&self) -> HashMap<&str, Vec<Listed>> {
        let mut listings: HashMap<&str, Vec<Listed>> = HashMap::new();
        if self.store.spec.kind() != StoreKind::Hub {
            return listings;
        }
        let strays = || self.scan.strays.iter();
        for stray in strays().filter(|stray| stray.problem.kind == ProblemKind::OrphanBlob) {
            if let Some(repo) = repo_of(stray.problem.path.as_deref()) {
                listings.entry(repo).or_default();
            }
        }
        let mut add = |repo: &str, commit: &str, path: &str| {
            if let (Some(list), Ok(listing)) = (listings.get_mut(repo), self.scan.read_listing(path))
                && !list.iter().any(|one| one.commit == commit)
            {
                list.push(Listed { commit: commit.to_owned(), listing });
            }
        };
        for model in &self.scan.models {
            if let (Some(repo), Some((path, _))) = (&model.repo, &model.listing) {
                add(model.key.split('/').next().unwrap_or_default(), &repo.revision, path);
            }
        }
        for stray in strays().filter(|stray| stray.problem.kind == ProblemKind::RefToNowhere) {
            if let (Some(repo), Some(path)) = (repo_of(stray.problem.path.as_deref()), &stray.problem.path)
                && let Some((commit, _)) = refs::commit_of(self.scan.root(), path)
            {
                add(repo, &commit, &format!("{repo}/trees/{commit}.json"));
            }
        }
        listings
    }

    fn stray(&self, stray: &Stray, listings: &HashMap<&str, Vec<Listed>>, useless: &mut Useless) -> Finding {
        let problem = stray.problem.clone();
        let path = problem.path.clone().unwrap_or_default();
        let kind = problem.kind;
        let repo = repo_of(Some(&path));
        let mut finding = Finding { repo_id: stray.repo_id.clone(), ..bare(&self.store.spec.id(), problem) };
        let of_leftover = stray.owner.map(|owner| self.scan.ledger.reclaim([owner]).bytes);
        let leftover = matches!(
            kind,
            ProblemKind::PartialDead
                | ProblemKind::OrphanBlob
                | ProblemKind::RepoWithoutSnapshot
                | ProblemKind::StaleLocks
        );
        if leftover {
            let items = stray.items.iter().chain(&stray.payload);
            let of_items = items.clone().map(|item| item.stat.allocated).sum();
            finding.useless_bytes = of_leftover.unwrap_or(of_items);
            match stray.items.is_empty() {
                true => useless.more = useless.more.saturating_add(finding.useless_bytes),
                false => useless
                    .files
                    .extend(items.map(|item| ((item.stat.dev, item.stat.ino), item.stat.allocated))),
            }
        }
        let root = self.scan.root();
        let repair = match (kind, repo) {
            (ProblemKind::PartialDead, _) => self.removals.repair(&path, RepairKind::RemovePartial),
            (ProblemKind::OrphanBlob, Some(repo)) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let repair = listings.get(repo).and_then(|list| links::adopt(root, repo, name, list));
                repair.map(|mut repair| {
                    let free = self.free(kind, stray, Some(repo)).filter(|_| stray.owner.is_some());
                    if let Some(free) = free {
                        repair.does.push_str(&format!(" (or free it: `{free}`)"));
                    }
                    repair
                })
            }
            (ProblemKind::SharedBlobUnlisted, _) => stray.payload.as_ref().map(|payload| Repair {
                kind: RepairKind::ListUser,
                does: format!("name {path} in the `.refs` of its shared blob"),
                changes: vec![RepairChange::List { payload: payload.path.clone(), line: path.clone() }],
            }),
            (ProblemKind::RefToNowhere, _) => {
                stray.items.first().and_then(|item| refs::rewrite(root, &path, &item.stat))
            }
            _ => None,
        };
        finding.held = self.removals.kept.get(path.as_str()).map(|reason| (*reason).to_owned());
        self.settle(&mut finding, repair, repo);
        let kind_of_repo = repo.and_then(kind_of);
        finding.command = match kind {
            ProblemKind::RefToNowhere | ProblemKind::RefInvalid => kind_of_repo.and_then(|kind| {
                let name = path.split_once("/refs/")?.1;
                self.download().fetch(kind, stray.repo_id.as_deref()?, None, Some(name), false)
            }),
            ProblemKind::HubInsideFolder => None,
            // What a listing names can be adopted: to remove the repo is no advice.
            ProblemKind::RepoWithoutSnapshot if repo.is_some_and(|repo| self.can_adopt(repo, listings)) => {
                None
            }
            _ if leftover && stray.owner.is_some() && finding.repair.is_none() => {
                self.free(kind, stray, repo)
            }
            _ => None,
        };
        finding
    }

    /// What frees a leftover alone.
    fn free(&self, kind: ProblemKind, stray: &Stray, repo: Option<&str>) -> Option<String> {
        // Lock files lie in a directory of their own, by the names of repos.
        let of_locks = || stray.problem.path.as_deref()?.strip_prefix(".locks/")?.split('/').next();
        clean(kind, &self.store.spec.id(), repo.or_else(of_locks), stray.repo_id.as_deref())
    }

    /// Whether a blob of the repo has its name in a listing, and can be linked again.
    fn can_adopt(&self, repo: &str, listings: &HashMap<&str, Vec<Listed>>) -> bool {
        let Some(listed) = listings.get(repo) else { return false };
        let orphans = self.scan.strays.iter().filter(|stray| stray.problem.kind == ProblemKind::OrphanBlob);
        orphans.filter_map(|stray| stray.problem.path.as_deref()).any(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            repo_of(Some(path)) == Some(repo) && links::adopt(self.scan.root(), repo, name, listed).is_some()
        })
    }

    fn model(
        &self,
        found: &FoundModel,
        known: &SurveyedModel,
        made: &HashSet<String>,
        out: &mut Vec<Finding>,
        useless: &mut Useless,
    ) {
        let mut problems = problems_of(self.scan, found, known);
        if let Some(checked) = known.summary.integrity.as_ref().filter(|_| known.summary.is_damaged()) {
            let at = checked.at.format("%Y-%m-%d");
            let message = format!("it failed `mlxman verify --level integrity` on {at}");
            problems.push(Problem::new(ProblemKind::ContentDamaged, None, message));
        }
        if problems.is_empty() {
            return;
        }
        let listing = found.listing.as_ref().and_then(|(path, _)| self.scan.read_listing(path).ok());
        let repo = found.repo.as_ref().and_then(|_| repo_of(Some(&found.key)));
        let mut told = HashSet::new();
        for problem in problems {
            let path = problem.path.clone();
            let in_model = path.as_deref().unwrap_or_default();
            let place = match (problem.kind, repo) {
                (ProblemKind::RefNewline | ProblemKind::RefInvalid, Some(repo)) => {
                    format!("{repo}/{in_model}")
                }
                _ => place_of(found, in_model),
            };
            let mut finding = Finding {
                model: Some(known.summary.model.clone()),
                key: Some(found.key.clone()),
                repo_id: known.summary.repo_id.clone(),
                place,
                ..bare(&self.store.spec.id(), problem)
            };
            let kind = finding.problem.kind;
            if kind == ProblemKind::EmptySnapshot {
                finding.useless_bytes = self.scan.ledger.reclaim([found.owner]).bytes;
                useless.more = useless.more.saturating_add(finding.useless_bytes);
                finding.held =
                    self.removals.kept.get(known.summary.model.as_str()).map(|reason| (*reason).to_owned());
            } else if cannot_be_used(&finding.problem) {
                finding.useless_bytes = found.allocated_bytes();
                let files = found.files.iter().map(|file| file.stat);
                useless.files.extend(files.map(|stat| ((stat.dev, stat.ino), stat.allocated)));
            }
            let repair = self.of_model(found, &finding, listing.as_ref(), made);
            // Several problems may ask for the same repair.
            let repair = repair.filter(|repair| told.insert(repair.changes.first().map(first_path)));
            self.settle(&mut finding, repair, repo);
            let source = (known.summary.repo_id.as_deref(), known.summary.revision.as_deref());
            if kind == ProblemKind::ContentDamaged {
                // It names each file, and what fetches it again.
                let model = quoted(&known.summary.model);
                finding.command = Some(format!("mlxman verify --level integrity {model}"));
            } else if finding.repair.is_none() {
                finding.command = self.download().for_model(found, kind, path.as_deref(), source);
            }
            out.push(finding);
        }
    }

    fn of_model(
        &self,
        found: &FoundModel,
        finding: &Finding,
        listing: Option<&Listing>,
        made: &HashSet<String>,
    ) -> Option<Repair> {
        let path = finding.problem.path.as_deref().unwrap_or_default();
        let is_hub = found.repo.is_some();
        match finding.problem.kind {
            ProblemKind::EmptySnapshot => self.removals.repair(&found.key, RepairKind::RemoveEmpty),
            ProblemKind::RefNewline => {
                let record = found.records.iter().find(|record| record.path == finding.place)?;
                refs::rewrite(self.scan.root(), &record.path, &record.stat)
            }
            ProblemKind::FlattenedLink if is_hub => links::unflatten(found, listing),
            ProblemKind::DanglingLink | ProblemKind::LinkOutsideStore | ProblemKind::LinkNotFollowed
                if is_hub =>
            {
                links::relink(self.scan, found, listing, path)
            }
            ProblemKind::MissingShard if is_hub => links::missing(self.scan, found, listing?, (path, made)),
            ProblemKind::StaleIndex | ProblemKind::MissingIndex | ProblemKind::ConfigInvalid => {
                index::rebuild(self.scan, found, path).ok()
            }
            _ => None,
        }
    }

    /// Notes the repair, unless somebody works there now.
    fn settle(&self, finding: &mut Finding, repair: Option<Repair>, repo: Option<&str>) {
        let Some(repair) = repair else { return };
        finding.held = match repo {
            Some(repo) => {
                let mut locks = self.locks.borrow_mut();
                match locks.entry(repo.to_owned()).or_insert_with(|| self.scan.lock_of_repo(repo)) {
                    Held::No => None,
                    Held::Yes => Some("a download holds a lock of its repo".to_owned()),
                    Held::Unknown => {
                        Some("its repo's locks cannot be asked, so a download may be running".to_owned())
                    }
                }
            }
            None => {
                let live = |stray: &&Stray| {
                    let key = finding.key.as_deref().unwrap_or_default();
                    let path = stray.problem.path.as_deref().unwrap_or_default();
                    stray.problem.kind == ProblemKind::PartialLive
                        && (key.is_empty() || path.starts_with(key))
                };
                let is_live = finding.key.is_some() && self.scan.strays.iter().any(|stray| live(&stray));
                is_live.then(|| "a download is writing to it".to_owned())
            }
        };
        if finding.held.is_none() {
            finding.repair = Some(repair);
        }
    }
}

fn first_path(change: &RepairChange) -> String {
    match change {
        RepairChange::Take { item } => item.path.clone(),
        RepairChange::MakeDir { path }
        | RepairChange::Link { path, .. }
        | RepairChange::Write { path, .. } => path.clone(),
        RepairChange::List { payload, .. } => payload.clone(),
    }
}

fn place_of(found: &FoundModel, path: &str) -> String {
    match (found.key.as_str(), path) {
        (key, "" | ".") => key.to_owned(),
        ("", path) => path.to_owned(),
        // What a download keeps of a model is named by its place in the store already.
        (key, path) if path == key || path.starts_with(&format!("{key}/")) => path.to_owned(),
        (key, path) => match found.listing.as_ref().filter(|(listing, _)| listing == path) {
            Some((listing, _)) => listing.clone(),
            None => format!("{key}/{path}"),
        },
    }
}

/// The directory of the repo that a path of a hub cache lies in.
fn repo_of(path: Option<&str>) -> Option<&str> {
    path?.split('/').next().filter(|name| kind_of(name).is_some())
}

fn kind_of(repo: &str) -> Option<RepoKind> {
    match repo.split_once("--")?.0 {
        "models" => Some(RepoKind::Model),
        "datasets" => Some(RepoKind::Dataset),
        "spaces" => Some(RepoKind::Space),
        "kernels" => Some(RepoKind::Kernel),
        _ => None,
    }
}

/// Whether a model is of no use with this problem.
fn cannot_be_used(problem: &Problem) -> bool {
    problem.severity == Severity::Error
        || matches!(
            problem.kind,
            ProblemKind::MissingShard
                | ProblemKind::NoWeights
                | ProblemKind::MissingComponent
                | ProblemKind::MissingRequiredFile
                | ProblemKind::RefNewline
        )
}

/// A model's problems, as they are now. What the registry knows beside what its own files say has no place in it.
fn problems_of(scan: &Scan, found: &FoundModel, known: &SurveyedModel) -> Vec<Problem> {
    let words = &known.summary.problems;
    if words.is_empty() && found.problems.is_empty() {
        return Vec::new();
    }
    let mut problems = inspect(scan, found, &Progress::default()).health.problems;
    problems.retain(|problem| {
        words.iter().any(|word| word == problem.kind.word())
            || found.problems.iter().any(|own| own.kind == problem.kind)
    });
    for word in words {
        let kind = ProblemKind::ALL.iter().find(|kind| kind.word() == word);
        let Some(kind) = kind.filter(|kind| !problems.iter().any(|problem| problem.kind == **kind)) else {
            continue;
        };
        let message = match kind {
            ProblemKind::MissingRequiredFile => {
                "the catalog says that it must have files that are not here; download it again to get them"
            }
            _ => "`mlxman show` says more of it",
        };
        problems.push(Problem::new(*kind, None, message));
    }
    problems
}
