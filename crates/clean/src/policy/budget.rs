//! `--max-size` and `--free`: naming one after the other until a number of bytes is reached. What shared blobs and hard
//! links come to is priced for the whole set, for the rows' sum would be wrong.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use mlxman_store::{Filesystem, OwnerId, Tally};

use super::choose::{Run, Subject};
use super::world::{At, View, stray_rule};
use crate::filter::quantity::format_bytes;
use crate::grace::LastUse;
use crate::irreplaceable::irreplaceable;
use crate::plan::{Reason, Rule, Shortfall};

/// Bytes that have to go from some stores.
pub(super) struct Budget {
    rule: Rule,
    /// The stores, by their places among the views.
    views: Vec<usize>,
    target: u64,
    now: u64,
    /// What has to go.
    needed: u64,
}

impl Budget {
    /// Every budget that was asked for, in the order in which they are met.
    pub(super) fn all(run: &Run<'_>) -> Vec<Budget> {
        let policies = run.holds.policies;
        let views = &run.world.views;
        let mut budgets = Vec::new();
        if let Some(target) = policies.max_size {
            // What was thrown away is on its way out: more goes for it neither now nor next time.
            let of =
                |view: &View<'_>| view.scan.usage().allocated_bytes.saturating_sub(view.scan.thrown_away());
            let now = views.iter().fold(0_u64, |sum, view| sum.saturating_add(of(view)));
            let all = (0..views.len()).collect();
            let needed = now.saturating_sub(target);
            budgets.push(Budget { rule: Rule::MaxSize, views: all, target, now, needed });
        }
        if let Some(target) = policies.free {
            for (views, free) in disks(views) {
                let thrown_away = views.iter().map(|view| run.world.views[*view].scan.thrown_away());
                let now = thrown_away.fold(free, u64::saturating_add);
                let needed = target.saturating_sub(now);
                budgets.push(Budget { rule: Rule::Free, views, target, now, needed });
            }
        }
        budgets
    }

    fn shortfall(&self, run: &Run<'_>, possible: u64) -> Shortfall {
        let missing = self.needed.saturating_sub(possible);
        let stores: Vec<String> = self.views.iter().map(|view| run.world.views[*view].id.clone()).collect();
        let [target, now, needed, might, less] =
            [self.target, self.now, self.needed, possible, missing].map(format_bytes);
        let what = match self.rule {
            Rule::Free => {
                format!("--free {target} cannot be met on the disk of {}: {now} are free", stores.join(", "))
            }
            _ => format!("--max-size {target} cannot be met: the stores take {now}"),
        };
        let message = format!(
            "{what}, so {needed} would have to go, and {might} may; {less} are missing, and nothing is named for it. \
             Ask for less, or let more go: the kept rows say how"
        );
        Shortfall {
            rule: self.rule,
            stores,
            target_bytes: self.target,
            now_bytes: self.now,
            needed_bytes: self.needed,
            possible_bytes: possible,
            missing_bytes: missing,
            message,
        }
    }
}

/// Stores of which nobody can tell what is free on their disks, where that was asked for.
pub(super) fn untold(run: &Run<'_>) -> Option<Shortfall> {
    let target = run.holds.policies.free?;
    let views = run.world.views.iter().filter(|view| view.scan.filesystem.is_none());
    let stores: Vec<String> = views.map(|view| view.id.clone()).collect();
    if stores.is_empty() {
        return None;
    }
    let message = format!(
        "--free {} cannot be met: the disk of {} does not say what is free on it; nothing is named for it there",
        format_bytes(target),
        stores.join(", ")
    );
    Some(Shortfall {
        rule: Rule::Free,
        stores,
        target_bytes: target,
        now_bytes: 0,
        needed_bytes: target,
        possible_bytes: 0,
        missing_bytes: target,
        message,
    })
}

/// The stores by the disk that they lie on, with what is free there.
fn disks(views: &[View<'_>]) -> Vec<(Vec<usize>, u64)> {
    let mut disks: Vec<(Vec<usize>, u64, &Filesystem)> = Vec::new();
    for (at, view) in views.iter().enumerate() {
        let Some(filesystem) = &view.scan.filesystem else { continue };
        let device = device_of(view);
        let is_same = |other: &&mut (Vec<usize>, u64, &Filesystem)| {
            let same_device = other.0.first().is_some_and(|first| device_of(&views[*first]) == device);
            // Volumes of one container, and subvolumes, have device numbers of their own and one free space.
            let pooled = (&other.2.kind, other.2.total_bytes, other.2.free_bytes)
                == (&filesystem.kind, filesystem.total_bytes, filesystem.free_bytes);
            same_device || pooled
        };
        match disks.iter_mut().find(is_same) {
            Some(disk) => disk.0.push(at),
            None => disks.push((vec![at], filesystem.free_bytes, filesystem)),
        }
    }
    disks.into_iter().map(|(views, free, _)| (views, free)).collect()
}

fn device_of(view: &View<'_>) -> Option<u64> {
    view.scan.root().stat().ok().map(|stat| stat.dev)
}

/// How soon something goes: the least first.
type Turn = (u8, Option<DateTime<Utc>>, Reverse<u64>, Subject);

/// Names what has to go, in its order, until there is enough. Where there is not enough, names nothing, and says what is
/// missing.
pub(super) fn meet(run: &mut Run<'_>, budget: &Budget) -> Option<Shortfall> {
    if budget.needed == 0 {
        return None;
    }
    let world = run.world;
    let mut tallies: Vec<(usize, Tally<'_>)> = Vec::new();
    for &view in &budget.views {
        let mut tally = world.views[view].scan.ledger.tally();
        run.owners(view).into_iter().for_each(|owner| tally.add(owner));
        tallies.push((view, tally));
    }
    let sum = |tallies: &[(usize, Tally<'_>)]| {
        tallies.iter().fold(0_u64, |sum, (_, tally)| sum.saturating_add(tally.bytes()))
    };
    let reason = match budget.rule {
        Rule::Free => format!("so that {} are free: it is missed least", format_bytes(budget.target)),
        _ => {
            format!("so that the stores take {}: it is the least recently used", format_bytes(budget.target))
        }
    };
    let mut named: Vec<(Subject, usize, OwnerId)> = Vec::new();
    for (subject, owner) in in_turn(run, budget) {
        if sum(&tallies) >= budget.needed {
            break;
        }
        let reason = Reason { rule: budget.rule, reason: words(run, subject, &reason) };
        if !run.name(subject, vec![reason]) {
            continue;
        }
        if let Some(at) = tallies.iter().position(|(view, _)| *view == subject.view()) {
            tallies[at].1.add(owner);
            named.push((subject, at, owner));
        }
    }
    let reached = sum(&tallies);
    // What frees nothing, for others use all of it, goes for nothing: the last that came first.
    for (subject, at, owner) in named.iter().rev() {
        if reached < budget.needed || tallies[*at].1.share_of(*owner) == 0 {
            tallies[*at].1.remove(*owner);
            run.unname(*subject);
        }
    }
    (reached < budget.needed).then(|| budget.shortfall(run, reached))
}

fn words(run: &Run<'_>, subject: Subject, reason: &str) -> String {
    let Subject::Model(at) = subject else {
        let (view, stray) = match subject {
            Subject::Stray(view, stray) => (view, stray),
            Subject::Model(at) => (at.view, at.model),
        };
        let so_that = reason.split(':').next().unwrap_or_default();
        return format!("{so_that}: {}", run.world.views[view].scan.strays[stray].problem.message);
    };
    match LastUse::of(run.world.get(at).1) {
        Some(used) => format!("{reason}, {}", used.describe(run.holds.now)),
        None => reason.to_owned(),
    }
}

/// Everything in these stores that may be named and is not yet, in the order in which it goes: first what nobody uses,
/// then what was not used for longest; for `--free`, what can be had again before what cannot.
fn in_turn(run: &Run<'_>, budget: &Budget) -> Vec<(Subject, OwnerId)> {
    let world = run.world;
    let may_lose = budget.rule == Rule::Free && run.holds.policies.args().include_irreplaceable;
    let mut turns: Vec<(Turn, OwnerId)> = Vec::new();
    for &index in &budget.views {
        let view = &world.views[index];
        let device = device_of(view);
        let elsewhere = |dev: u64| budget.rule == Rule::Free && Some(dev) != device;
        for (model, (found, known)) in view.models.iter().enumerate() {
            let at = At { view: index, model };
            let subject = Subject::Model(at);
            // What lies on a disk that is mounted in the store frees nothing on this one.
            let is_elsewhere = found.files.iter().any(|file| elsewhere(file.stat.dev));
            if !world.is_allowed(at) || run.is_named(subject) || is_elsewhere {
                continue;
            }
            let regret = match found.files.is_empty() {
                true => 0,
                false if may_lose && irreplaceable(view.scan, found, known).is_some() => 2,
                false => 1,
            };
            let used = LastUse::of(known).map(|used| used.time);
            turns.push(((regret, used, Reverse(found.size_bytes()), subject), found.owner));
        }
        for (at, stray) in view.scan.strays.iter().enumerate() {
            let subject = Subject::Stray(index, at);
            let Some((_, owner)) = stray_rule(stray) else { continue };
            let is_elsewhere = stray.items.iter().any(|item| elsewhere(item.stat.dev));
            if view.allowed.1[at] && !run.is_named(subject) && !is_elsewhere {
                turns.push(((0, stray.last_modified(), Reverse(stray.size_bytes()), subject), owner));
            }
        }
    }
    turns.sort();
    turns.into_iter().map(|((.., subject), owner)| (subject, owner)).collect()
}
