//! Which rows are done: those that were given, as far as a plan that was made anew says the same of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::refuse::place_of;
use super::{AppliedStore, Skipped, Watched};
use crate::plan::{Candidate, Item, ItemKind, Plan, Rule};
use crate::trash::is_shared;

/// What is going to be done: rows of the fresh plan, and what they share, by their places among those.
pub(super) struct Chosen<'a> {
    pub(super) rows: Vec<&'a Candidate>,
    pub(super) shared: Vec<(Vec<usize>, &'a Item)>,
}

pub(super) fn choose<'a>(
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

pub(super) fn what_of(row: &Candidate) -> String {
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
