//! Applying a plan: nothing but what it names is moved, and of that only what is still as the plan saw it.
//!
//! The plan is made anew under the store's lock, for its own rows alone, so everything that may keep a row is asked again:
//! pins, locks, open files, links, refs. What the new plan would not do, or what the old one did not name, is skipped.

mod watched;

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use mlxman_manifest::Manifest;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::plan::{Candidate, Item, ItemKind, PLAN_VERSION, Plan, Rule};
use crate::trash::{
    Action, Carried, DirTimes, JOURNAL_VERSION, Journal, JournalRow, Purpose, Seen, Step, TRASH, Trash,
    TrashError, carry_out, is_in_trash, is_shared, prepare, trouble,
};

pub use watched::Watched;

use watched::own_of;

/// Why a plan is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It has another form.
    #[error(
        "the plan has the form {found}, and this mlxman knows {PLAN_VERSION}; make a new one with `mlxman clean preview --out`"
    )]
    Version {
        /// Its form.
        found: u32,
    },
    /// It names what lies outside of its store, or in its trash.
    #[error("the plan names `{path}`, which is no path in {store}; nothing was touched")]
    Outside {
        /// What it names.
        path: String,
        /// The store.
        store: String,
    },
    /// It contradicts itself.
    #[error("the plan is no plan that mlxman wrote: {why}; nothing was touched")]
    Contradiction {
        /// How.
        why: String,
    },
    /// Its store is another one now.
    #[error(
        "{store} is not the directory that the plan was made for (another machine's, or its volume was changed); \
         make a new plan; nothing was touched"
    )]
    OtherStore {
        /// The store.
        store: String,
    },
}

/// Which rows of a plan are wanted: stores, and what they have there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only(HashSet<(String, String)>);

impl Only {
    /// Whether a model, by its key, or something else, by its path, is wanted.
    pub(crate) fn has(&self, store: &str, place: &str) -> bool {
        self.0.contains(&(store.to_owned(), place.to_owned()))
    }
}

fn place_of(row: &Candidate) -> &str {
    row.key.as_deref().or(row.path.as_deref()).unwrap_or_default()
}

impl Plan {
    /// Its rows.
    pub fn only(&self) -> Only {
        Only(self.candidates.iter().map(|row| (row.store.clone(), place_of(row).to_owned())).collect())
    }

    /// Makes sure that it names nothing that a plan may not name. A plan is a file that anybody may have written.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        if self.schema_version != PLAN_VERSION {
            return Err(PlanError::Version { found: self.schema_version });
        }
        let contradiction = |why: String| Err(PlanError::Contradiction { why });
        let stores: HashSet<&str> = self.stores.iter().map(|store| store.store.as_str()).collect();
        let mut places = HashSet::new();
        for row in &self.candidates {
            let place = place_of(row);
            if !stores.contains(row.store.as_str()) {
                return contradiction(format!("{place} is in {}, which is none of its stores", row.store));
            }
            let is_bad = |path: &str| !mlxman_store::is_safe_relative(path) || is_in_trash(path);
            // A model may be the root of its store, which then keeps its directory.
            let own = std::iter::once(place).filter(|place| !place.is_empty());
            let items = row.items.iter().map(|item| item.path.as_str());
            if let Some(path) = own.chain(items).find(|path| is_bad(path)) {
                return Err(PlanError::Outside { path: path.to_owned(), store: row.store.clone() });
            }
            if !places.insert((row.store.as_str(), place)) {
                return contradiction(format!("{place} is in it twice"));
            }
        }
        for shared in &self.shared_items {
            let rows: Option<Vec<&Candidate>> =
                shared.needs.iter().map(|row| self.candidates.get(*row)).collect();
            let Some([first, rest @ ..]) = rows.as_deref() else {
                return contradiction(format!("{} belongs to rows that it has not", shared.item.path));
            };
            if rest.iter().any(|row| row.store != first.store) {
                return contradiction(format!("{} is in several stores", shared.item.path));
            }
            let path = &shared.item.path;
            if !mlxman_store::is_safe_relative(path) || is_in_trash(path) {
                return Err(PlanError::Outside { path: path.clone(), store: first.store.clone() });
            }
        }
        Ok(())
    }
}

/// What came of applying a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman applied plan")]
#[non_exhaustive]
pub struct Applied {
    /// When.
    pub applied_at: DateTime<Utc>,
    /// What was done in each store.
    pub stores: Vec<AppliedStore>,
    /// What the filesystems got back already, but for the journals, which take their place until the trash is emptied.
    pub freed_bytes: u64,
    /// What they get back when the trash is emptied.
    pub reclaimable_bytes: u64,
}

/// What was done in one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct AppliedStore {
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The journal's name, for `mlxman undo`; absent where nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Rows that were done.
    pub done: Vec<JournalRow>,
    /// Rows that were not, and why.
    pub skipped: Vec<Skipped>,
    /// What stays of rows that were done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Skipped>,
    /// What the filesystem got back already.
    pub freed_bytes: u64,
    /// What it gets back when the trash is emptied.
    pub reclaimable_bytes: u64,
}

impl Applied {
    /// Nothing yet.
    pub fn at(now: DateTime<Utc>) -> Self {
        Applied { applied_at: now, stores: Vec::new(), freed_bytes: 0, reclaimable_bytes: 0 }
    }

    /// What was done in one more store.
    pub fn add(&mut self, store: AppliedStore) {
        self.freed_bytes = self.freed_bytes.saturating_add(store.freed_bytes);
        self.reclaimable_bytes = self.reclaimable_bytes.saturating_add(store.reclaimable_bytes);
        self.stores.push(store);
    }
}

impl AppliedStore {
    /// Nothing yet.
    pub fn of(store: String) -> Self {
        AppliedStore { store, ..AppliedStore::default() }
    }
}

/// Something that was not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Skipped {
    /// The model, or the path.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// The JSON Schema of what came of a plan.
pub fn applied_schema() -> Schema {
    mlxman_manifest::schema_of::<Applied>()
}

/// Why a store was left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The plan is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The trash cannot be written.
    #[error("{store}: {why}; what was begun is taken back by the next command that looks at the store")]
    Trash {
        /// The store.
        store: String,
        /// What went wrong.
        why: String,
    },
}

/// Does what `given` says of the store that `trash` is of, as far as `fresh`, the same plan made anew under the trash's
/// lock, says it too. `watched` was looked at before that.
///
/// # Errors
/// See [`ApplyError`]. What could not be done of single rows is in the result.
pub fn apply(
    trash: &Trash<'_>,
    store: &str,
    (given, fresh): (&Plan, &Plan),
    watched: &Watched,
    now: DateTime<Utc>,
) -> Result<AppliedStore, ApplyError> {
    let editor = trash.editor();
    let refuse = |error: TrashError| ApplyError::Trash { store: store.to_owned(), why: error.to_string() };
    let other = || PlanError::OtherStore { store: store.to_owned() };
    let seen = given.stores.iter().find(|one| one.store == store).ok_or_else(other)?;
    let root = editor.root().stat().map_err(|source| refuse(trouble("the store cannot be read")(source)))?;
    if (root.dev, root.ino) != (seen.device, seen.inode) {
        return Err(other().into());
    }
    let mut applied = AppliedStore { store: store.to_owned(), ..AppliedStore::default() };
    let Chosen { rows, shared } = choose(store, given, fresh, watched, &mut applied);
    if rows.is_empty() {
        return Ok(applied);
    }
    let id = trash.new_id(now).map_err(|error| refuse(trouble("it cannot be read")(error)))?;
    let mut steps = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        for item in &row.items {
            let is_own = row.key.as_deref().is_some_and(|key| is_within(&item.path, key));
            push_steps(editor, &mut steps, &[place], item, is_own);
        }
    }
    for (needs, item) in &shared {
        push_steps(editor, &mut steps, needs, item, false);
    }
    drop_needless_unlists(&mut steps);
    let mut dirs: Vec<DirTimes> = trash.root_times().cloned().into_iter().collect();
    let of_steps = Journal::times_of(editor, &steps);
    // The trash was made in the root a moment ago: its times are those from before.
    let known = dirs.len();
    dirs.extend(of_steps.into_iter().filter(|dir| !dir.path.is_empty() || known == 0));
    let freed_by_dirs: Vec<u64> = steps.iter().map(|step| allocated_dir(editor, &step.action)).collect();
    let journal = Journal {
        schema_version: JOURNAL_VERSION,
        id: id.clone(),
        created_at: now,
        generator: Manifest::generator(),
        store: store.to_owned(),
        inode: root.ino,
        purpose: Purpose::Clean,
        rows: rows.iter().map(|row| row_of(row)).collect(),
        steps,
        dirs,
    };
    prepare(editor, &id).map_err(|error| refuse(trouble("a journal cannot be made")(error)))?;
    let own = own_of(&journal);
    let places: Vec<&str> = rows.iter().map(|row| place_of(row)).collect();
    let settling = watched.settling(editor.root(), &places, &own);
    let settled = |row: usize| settling.why(row);
    let carried = carry_out(editor, &journal, &settled).map_err(refuse)?;
    let is_done = |row: &usize| !carried.failed.contains_key(row);
    applied.done.extend((0..rows.len()).filter(is_done).map(|row| journal.rows[row].clone()));
    let all_done = |step: &Step| step.rows.iter().all(is_done);
    let gone = |step: &Step| match &step.action {
        Action::RemoveDir { path, .. } => editor.stat(path).is_err(),
        _ => false,
    };
    let dirs = journal.steps.iter().zip(&freed_by_dirs).filter(|(step, _)| all_done(step) && gone(step));
    applied.freed_bytes = dirs.map(|(_, bytes)| bytes).sum();
    let Carried { failed, left } = carried;
    applied.skipped.extend(
        failed.into_iter().map(|(row, reason)| Skipped { what: journal.rows[row].what.clone(), reason }),
    );
    applied.left.extend(left.into_iter().map(|(what, reason)| Skipped { what, reason }));
    let kept = trash.weigh(&id);
    if kept.items > 0 {
        applied.reclaimable_bytes = kept.freed_bytes;
    }
    // Also of directories alone: they can be put back.
    applied.id = trash.has(&id).then_some(id);
    Ok(applied)
}

/// What is going to be done: rows of the fresh plan, and what they share, by their places among those.
struct Chosen<'a> {
    rows: Vec<&'a Candidate>,
    shared: Vec<(Vec<usize>, &'a Item)>,
}

fn choose<'a>(
    store: &str,
    given: &Plan,
    fresh: &'a Plan,
    watched: &Watched,
    applied: &mut AppliedStore,
) -> Chosen<'a> {
    let mut named: HashMap<&str, &Item> = HashMap::new();
    for row in given.candidates.iter().filter(|row| row.store == store) {
        named.extend(row.items.iter().map(|item| (item.path.as_str(), item)));
    }
    let of_store = |row: &usize| given.candidates.get(*row).is_some_and(|row| row.store == store);
    let shared = given.shared_items.iter().filter(|shared| shared.needs.iter().all(of_store));
    named.extend(shared.map(|shared| (shared.item.path.as_str(), &shared.item)));
    let now: HashMap<&str, (usize, &Candidate)> = fresh
        .candidates
        .iter()
        .enumerate()
        .filter(|(_, row)| row.store == store)
        .map(|(at, row)| (place_of(row), (at, row)))
        .collect();
    let mut rows = Vec::new();
    let mut place_in_rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut going: HashSet<&str> = HashSet::new();
    for row in given.candidates.iter().filter(|row| row.store == store) {
        let what = what_of(row);
        let skip = |reason: String| Skipped { what: what.clone(), reason };
        if row.rule == Rule::Missing {
            let reason = "its files are gone already; its record stays, with what you said of it";
            applied.left.push(skip(reason.to_owned()));
            continue;
        }
        let Some((at, now)) = now.get(place_of(row)) else {
            applied.skipped.push(skip(why_not(row, fresh)));
            continue;
        };
        if let Some(why) = watched.restless(place_of(row)) {
            applied.skipped.push(skip(why));
            continue;
        }
        // A repo without a snapshot may have nothing but what it shares with its orphans.
        let shares = || fresh.shared_items.iter().any(|shared| shared.needs.contains(at));
        if now.items.is_empty() && !shares() {
            applied.skipped.push(skip("there is nothing on the disk to remove".to_owned()));
            continue;
        }
        if let Some(why) =
            now.items.iter().find_map(|item| difference(named.get(item.path.as_str()).copied(), item))
        {
            applied.skipped.push(skip(why));
            continue;
        }
        place_in_rows.insert(*at, rows.len());
        going.extend(now.items.iter().map(|item| item.path.as_str()));
        rows.push(*now);
    }
    let mut shared = Vec::new();
    for one in &fresh.shared_items {
        let needs: Option<Vec<usize>> = one.needs.iter().map(|row| place_in_rows.get(row).copied()).collect();
        let Some(needs) = needs else { continue };
        match difference(named.get(one.item.path.as_str()).copied(), &one.item) {
            None => {
                going.insert(&one.item.path);
                shared.push((needs, &one.item));
            }
            Some(why) => applied.left.push(Skipped { what: one.item.path.clone(), reason: why }),
        }
    }
    // A shared blob goes when all links to it are gone, the list of its users after it, and directories when they are empty.
    shared.sort_by_key(|(_, item)| match (item.kind, item.path.strip_suffix(".refs")) {
        (ItemKind::Dir, _) => 3,
        (_, Some(payload)) if is_shared(payload) => 2,
        _ => u8::from(is_shared(&item.path)),
    });
    // What the plan named of these rows, and nobody would take now.
    let done: HashSet<&str> = rows.iter().map(|row| place_of(row)).collect();
    let of_done = given.candidates.iter().filter(|row| row.store == store && done.contains(place_of(row)));
    let mut files = of_done.flat_map(|row| &row.items).filter(|item| item.kind != ItemKind::Dir);
    let stays = files.by_ref().filter(|item| !going.contains(item.path.as_str()));
    applied.left.extend(stays.map(|item| Skipped {
        what: item.path.clone(),
        reason: "it is gone, or something else uses it now".to_owned(),
    }));
    Chosen { rows, shared }
}

fn what_of(row: &Candidate) -> String {
    row.model.clone().or_else(|| row.path.clone()).unwrap_or_default()
}

/// Why a row of the plan is none of the fresh one.
fn why_not(row: &Candidate, fresh: &Plan) -> String {
    let what = what_of(row);
    match fresh.kept.iter().find(|kept| kept.store == row.store && kept.model == what) {
        Some(kept) => kept.reason.clone(),
        None => format!(
            "the store changed since the plan was made: it is gone, or not to be removed by `{}` any more",
            words(row)
        ),
    }
}

fn words(row: &Candidate) -> String {
    serde_json::to_value(row.rule).ok().and_then(|rule| rule.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What is different about something since the plan was made.
fn difference(then: Option<&Item>, now: &Item) -> Option<String> {
    let path = &now.path;
    let Some(then) = then else { return Some(format!("{path} is new since the plan was made")) };
    // A directory is what is in it, and that is compared by itself: one that an undo made again is as good.
    let is_dir = now.kind == ItemKind::Dir;
    let same = (then.kind, then.device) == (now.kind, now.device) && (is_dir || then.inode == now.inode);
    if !same {
        return Some(format!("{path} is another {} since the plan was made", kind_word(now.kind)));
    }
    if !is_dir && (then.size, then.mtime_ns) != (now.size, now.mtime_ns) {
        return Some(format!("{path} was written to since the plan was made"));
    }
    (then.link_target != now.link_target).then(|| format!("{path} leads elsewhere since the plan was made"))
}

fn kind_word(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::File => "file",
        ItemKind::Link => "link",
        ItemKind::Dir => "directory",
    }
}

fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn row_of(row: &Candidate) -> JournalRow {
    JournalRow {
        what: what_of(row),
        key: row.key.clone(),
        reason: row.reason.clone(),
        reclaimable_bytes: row.reclaimable_bytes,
    }
}

fn push_steps(
    editor: &mlxman_store::Editor<'_>,
    steps: &mut Vec<Step>,
    rows: &[usize],
    item: &Item,
    is_own: bool,
) {
    let path = item.path.clone();
    if item.kind == ItemKind::Dir {
        // One that cannot be asked is gone, which is then told, or cannot be removed, which is told too.
        let of =
            editor.attributes(&path).unwrap_or(mlxman_store::DirAttributes { mode: 0o755, uid: 0, gid: 0 });
        let action = Action::RemoveDir { path, must: is_own, mode: of.mode, uid: of.uid, gid: of.gid };
        return steps.push(Step { rows: rows.to_vec(), action });
    }
    let seen = Seen {
        kind: item.kind,
        device: item.device,
        inode: item.inode,
        size: item.size,
        mtime_ns: item.mtime_ns,
        link_target: item.link_target.clone(),
    };
    let slot = steps.len();
    let payload = item.link_target.as_deref().and_then(|target| shared_payload(&path, target));
    steps.push(Step { rows: rows.to_vec(), action: Action::Take { path: path.clone(), slot, seen } });
    if let Some(payload) = payload {
        steps.push(Step { rows: rows.to_vec(), action: Action::Unlist { payload, line: path } });
    }
}

/// The shared blob that a repo's blob leads to, as huggingface_hub links it.
fn shared_payload(path: &str, target: &str) -> Option<String> {
    let mut parts = path.split('/');
    let is_blob = parts.next().is_some_and(|repo| repo.contains("--")) && parts.next() == Some("blobs");
    let at = target.rfind("/blobs/").filter(|_| is_blob)?;
    let payload = &target[at + 1..];
    is_shared(payload).then(|| payload.to_owned())
}

/// A list that goes with its blob needs no line taken out of it.
fn drop_needless_unlists(steps: &mut Vec<Step>) {
    let taken: HashSet<String> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Take { path, .. } if is_shared(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    steps.retain(|step| !matches!(&step.action, Action::Unlist { payload, .. } if taken.contains(payload)));
}

fn allocated_dir(editor: &mlxman_store::Editor<'_>, action: &Action) -> u64 {
    match action {
        Action::RemoveDir { path, .. } => editor.stat(path).map_or(0, |stat| stat.allocated),
        _ => 0,
    }
}

/// Where the trash of a store lies, for people.
pub fn trash_dir(root: &std::path::Path) -> std::path::PathBuf {
    root.join(TRASH)
}
