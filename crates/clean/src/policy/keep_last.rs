//! `--keep-last`: of each repo the most recent snapshots stay.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mlxman_store::RepoKind;

use super::world::{At, World};
use crate::plan::{Keep, Rule};
use crate::replaced::lost_with;

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It is one of the most recent: no policy names it.
    Kept(String),
    /// It is not, and one of those has all that it has.
    Beyond(String),
    /// It is not, and yet has something that none of those has.
    Needed(String),
}

impl Rank {
    /// Why the snapshot is kept against a policy, if it is.
    pub(super) fn keeps(&self, rule: Rule) -> Option<(Keep, String)> {
        match self {
            // What has no file, or lacks its blobs, is no snapshot that anybody keeps.
            Rank::Kept(_) if matches!(rule, Rule::Empty | Rule::Broken) => None,
            Rank::Kept(reason) => Some((Keep::KeepLast, reason.clone())),
            Rank::Needed(reason) => Some((Keep::NotReplaced, reason.clone())),
            Rank::Beyond(_) => None,
        }
    }
}

/// Ranks every snapshot of every repo: those that a ref names come first, then what was written last. Only whole ones
/// count, so that what is kept loads; what is not whole and comes before the last of them is kept as well.
pub(super) fn ranks(world: &World<'_>, count: u32) -> BTreeMap<At, Rank> {
    let mut repos: BTreeMap<(usize, &'static str, &str), Vec<At>> = BTreeMap::new();
    for at in world.models() {
        if let Some(repo) = &world.get(at).0.repo {
            let kind = match repo.kind {
                RepoKind::Model => "model",
                RepoKind::Dataset => "dataset",
                RepoKind::Space => "space",
                _ => "other",
            };
            repos.entry((at.view, kind, &repo.id)).or_default().push(at);
        }
    }
    let mut ranks = BTreeMap::new();
    for ((.., id), mut snapshots) in repos {
        snapshots.sort_by_key(|at| {
            let (found, _) = world.get(*at);
            let repo = found.repo.as_ref();
            let written = found.dirs.first().map(|(_, stat)| stat.mtime_ns);
            // One of which nobody can tell whether a ref names it may be the one.
            let named = repo.is_some_and(|repo| repo.detached() != Some(true));
            let current = repo.is_some_and(|repo| repo.current);
            Reverse((named, current, written, Reverse(*at)))
        });
        let words = if count == 1 {
            "the most recent snapshot".to_owned()
        } else {
            format!("the {count} most recent snapshots")
        };
        let among = if count == 1 { "it is" } else { "it is among" };
        let mut whole: Vec<At> = Vec::new();
        for at in snapshots {
            let rank = if whole.len() < count as usize {
                if world.get(at).1.summary.is_sound() {
                    whole.push(at);
                }
                Rank::Kept(format!("{among} {words} of {id}, which --keep-last {count} keeps"))
            } else {
                let not = among.replacen("it is", "it is not", 1);
                beyond(world, at, &whole, &format!("{not} {words} of {id}, kept by --keep-last {count}"))
            };
            ranks.insert(at, rank);
        }
    }
    ranks
}

fn beyond(world: &World<'_>, at: At, kept: &[At], reason: &str) -> Rank {
    let mine = world.get(at);
    let kind = mine.0.repo.as_ref().map_or(RepoKind::Model, |repo| repo.kind);
    let mut lost: Option<String> = None;
    for other in kept {
        match lost_with(mine, world.get(*other), kind) {
            None => return Rank::Beyond(reason.to_owned()),
            Some(path) => lost = lost.or(Some(path)),
        }
    }
    let path = lost.unwrap_or_default();
    Rank::Needed(format!(
        "no snapshot that is kept has anything that stands for its `{}`",
        path.escape_debug()
    ))
}
