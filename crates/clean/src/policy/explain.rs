//! Trying policies on one model: what each says of it, and what keeps it.

use mlxman_manifest::registry::Survey;
use mlxman_store::{RepoSnapshot, UsedBy};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::keep_last::{Rank, ranks};
use super::world::At;
use super::{Holds, Policies, PolicyArgs, World, choose};
use crate::facts::facts_of;
use crate::filter::FilterArgs;
use crate::grace::LastUse;
use crate::guards::{Guard, Guards, Of};
use crate::irreplaceable::irreplaceable;
use crate::pins::{Pins, download_at_work, only_snapshot, words_of_user};
use crate::plan::{Keep, Rule};
use crate::preview::{Asked, preview};

/// What a preview would make of one model, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman explain")]
#[non_exhaustive]
pub struct Explanation {
    /// Version of this form.
    #[schemars(range(min = 1, max = 1))]
    pub schema_version: u32,
    /// The model.
    pub model: String,
    /// The store, as `KIND=PATH`.
    pub store: String,
    /// The model's place in the store.
    pub key: String,
    /// The filters that were given.
    pub filters: FilterArgs,
    /// Whether they allow it.
    pub matches_filters: bool,
    /// The policies that were given.
    pub policies: PolicyArgs,
    /// What the filters and policies together make of it.
    pub outcome: Outcome,
    /// What keeps it, by name, where something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<Keep>,
    /// The same in words; for a candidate, why it is one.
    pub reason: String,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<chrono::DateTime<chrono::Utc>>,
    /// What says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_by: Option<UsedBy>,
    /// Whether it cannot be had again, as far as anybody can tell.
    pub irreplaceable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irreplaceable_reason: Option<String>,
    /// What each policy says of it alone.
    pub answers: Vec<PolicyAnswer>,
    /// What each guard says of it, whatever the policies.
    pub guards: Vec<GuardAnswer>,
}

/// What becomes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It would go.
    Candidate,
    /// Something names it, and something keeps it.
    Kept,
    /// Nothing names it.
    NotNamed,
}

/// What one policy says of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct PolicyAnswer {
    /// The policy's option, such as `--older-than`.
    pub policy: String,
    /// Whether it was given.
    pub asked: bool,
    /// Whether it names the model; absent where it was not given and means nothing without a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<bool>,
    /// What would keep it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<Keep>,
    /// Why, in words.
    pub reason: String,
}

/// What one guard says of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct GuardAnswer {
    /// What it looks at.
    pub guard: String,
    /// The rule by which it keeps the model, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<Keep>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Explains what a preview makes of the model at `key` in `store`, if it is there.
pub fn explain(survey: &Survey, asked: Asked<'_>, store: &str, key: &str) -> Option<Explanation> {
    let index = survey.stores.iter().position(|one| one.spec.id() == store)?;
    let of_store = &survey.stores[index];
    let scan = of_store.scan.as_ref().ok()?;
    let at = scan.models.iter().position(|found| found.key == key)?;
    let (found, known) = (&scan.models[at], &of_store.models[at]);
    let summary = &known.summary;
    let plan = preview(survey, asked);
    let row = plan.candidates.iter().find(|row| row.store == store && row.key.as_deref() == Some(key));
    let kept = plan.kept.iter().find(|kept| kept.store == store && kept.model == summary.model);
    let (outcome, kept_by, reason) = match (row, kept) {
        (Some(row), _) => (Outcome::Candidate, None, row.reason.clone()),
        (None, Some(kept)) => (Outcome::Kept, Some(kept.rule), kept.reason.clone()),
        (None, None) => (Outcome::NotNamed, None, "nothing that was asked names it".to_owned()),
    };
    let guards = Guards::of(survey, asked.others);
    let pins = Pins::of(survey, asked.pinned_elsewhere);
    let of = Of { index, scan };
    let models: Vec<_> = scan.models.iter().zip(&of_store.models).collect();
    let detached = found.repo.as_ref().is_some_and(|repo| repo.detached() == Some(true));
    let rule = if detached { Rule::Detached } else { Rule::OlderThan };
    let holds = Holds { guards: &guards, pins: &pins, policies: asked.policies, now: asked.now };
    let by_guard = |guard| guards.ask(guard, of, (found, known), &models, rule);
    let answers = [
        ("what you said of it", words_of_user(found, known, scan, &pins)),
        ("downloads at work", download_at_work(found, scan)),
        ("the only snapshot", only_snapshot(found, scan, rule)),
        ("open files", by_guard(Guard::OpenFiles)),
        ("locks of its repo", by_guard(Guard::Locks)),
        ("locks of shared blobs", by_guard(Guard::SharedLocks)),
        ("links that lead to it", by_guard(Guard::Links)),
        ("what can be read", by_guard(Guard::Readable)),
        ("what replaces it", by_guard(Guard::Replaced)),
        ("grace", holds.grace(found, known, rule)),
        ("whether it can be had again", holds.irreplaceable(scan, found, known)),
    ];
    let guard = |(guard, kept): (&str, Option<(Keep, String)>)| {
        let (kept_by, reason) = kept.unzip();
        GuardAnswer { guard: guard.to_owned(), kept_by, reason }
    };
    let irreplaceable_reason = irreplaceable(scan, found, known);
    let used = LastUse::of(known);
    Some(Explanation {
        schema_version: 1,
        model: summary.model.clone(),
        store: store.to_owned(),
        key: key.to_owned(),
        filters: asked.filters.args().clone(),
        matches_filters: asked.filters.matches(&facts_of(summary), asked.now),
        policies: asked.policies.args().clone(),
        outcome,
        kept_by,
        reason,
        last_used: used.map(|used| used.time),
        last_used_by: used.map(|used| used.by),
        irreplaceable: irreplaceable_reason.is_some(),
        irreplaceable_reason,
        answers: one_by_one(asked.policies.args())
            .into_iter()
            .map(|alone| answer(survey, asked, &holds, alone, (index, at)))
            .collect(),
        guards: answers.into_iter().map(guard).collect(),
    })
}

/// One policy, and what it is given alone.
struct Alone {
    policy: &'static str,
    asked: bool,
    args: Option<PolicyArgs>,
}

/// Every policy by itself: those that need no value also where they were not given.
fn one_by_one(given: &PolicyArgs) -> Vec<Alone> {
    let of = PolicyArgs {
        grace: given.grace.clone(),
        include_irreplaceable: given.include_irreplaceable,
        ..PolicyArgs::default()
    };
    let alone = |policy, asked: bool, args: Option<PolicyArgs>| Alone { policy, asked, args };
    let valued = |policy, asked: bool, args: PolicyArgs| alone(policy, asked, asked.then_some(args));
    vec![
        valued(
            "--keep-last",
            given.keep_last.is_some(),
            PolicyArgs { keep_last: given.keep_last, ..of.clone() },
        ),
        valued(
            "--older-than",
            given.older_than.is_some(),
            PolicyArgs { older_than: given.older_than.clone(), ..of.clone() },
        ),
        valued(
            "--max-size",
            given.max_size.is_some(),
            PolicyArgs { max_size: given.max_size.clone(), ..of.clone() },
        ),
        valued("--free", given.free.is_some(), PolicyArgs { free: given.free.clone(), ..of.clone() }),
        alone("--detached", given.detached, Some(PolicyArgs { detached: true, ..of.clone() })),
        alone("--broken", given.broken, Some(PolicyArgs { broken: true, ..of.clone() })),
        alone("--superseded", given.superseded, Some(PolicyArgs { superseded: true, ..of.clone() })),
        alone("--duplicates", given.duplicates, Some(PolicyArgs { duplicates: true, ..of })),
    ]
}

fn answer(
    survey: &Survey,
    asked: Asked<'_>,
    holds: &Holds<'_>,
    alone: Alone,
    (index, at): (usize, usize),
) -> PolicyAnswer {
    let Alone { policy, asked: is_asked, args } = alone;
    let mut answer = PolicyAnswer {
        policy: policy.to_owned(),
        asked: is_asked,
        names: None,
        kept_by: None,
        reason: "it was not given a value".to_owned(),
    };
    let Some(policies) = args.and_then(|args| Policies::parse(&args).ok()) else { return answer };
    let asked = Asked { policies: &policies, ..asked };
    let choice = choose(&World::of(survey, &asked), &Holds { policies: &policies, ..*holds }, asked.files);
    let store = &survey.stores[index];
    let (id, model) = (store.spec.id(), &store.models[at].summary.model);
    let kept = choice.kept.iter().find(|kept| kept.store == id && kept.model == *model);
    let short = choice.shortfalls.first();
    answer.names = Some(false);
    if let Some(reasons) = choice.models.get(&(index, at)) {
        answer.names = Some(true);
        answer.reason = reasons.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>().join("; ");
    } else if let Some(kept) = kept {
        answer.names = Some(true);
        answer.kept_by = Some(kept.rule);
        answer.reason.clone_from(&kept.reason);
    } else if let Some(short) = short {
        answer.reason.clone_from(&short.message);
    } else {
        answer.reason = not_named(policy, survey, asked, (index, at));
    }
    answer
}

/// Why a policy that was tried alone does not name a model.
fn not_named(policy: &str, survey: &Survey, asked: Asked<'_>, (index, at): (usize, usize)) -> String {
    let store = &survey.stores[index];
    let (Ok(scan), known) = (&store.scan, &store.models[at]) else {
        return "its store cannot be read".to_owned();
    };
    let found = &scan.models[at];
    let args = asked.policies.args();
    if !asked.filters.matches(&facts_of(&known.summary), asked.now) {
        return "the filters leave it out".to_owned();
    }
    let rank = || {
        let world = World::of(survey, &asked);
        let view = world.views.iter().position(|view| view.index == index)?;
        match ranks(&world, args.keep_last?).remove(&At { view, model: at })? {
            Rank::Kept(why) | Rank::Needed(why) | Rank::Beyond(why) => Some(why),
        }
    };
    let plain = match (policy, found.repo.as_ref().and_then(RepoSnapshot::detached)) {
        ("--keep-last", _) => return rank().unwrap_or_else(|| "it is no snapshot of a hub cache".to_owned()),
        ("--older-than", _) => {
            let used = LastUse::of(known).map(|used| used.describe(asked.now));
            return format!("it was {}", used.unwrap_or_else(|| "never seen to be used".to_owned()));
        }
        ("--max-size" | "--free", _) => {
            "the target is met already, or by models that come before it: `clean preview` with this policy names them"
        }
        ("--detached", Some(false)) => "a ref names it",
        ("--detached", Some(true)) => "no ref names it, and none names another snapshot of its repo",
        ("--detached", None) => "it is no snapshot of a hub cache, or a ref of its repo cannot be read",
        ("--broken", _) => "it has files, and its links lead to blobs that are there",
        ("--superseded", _) => {
            "no newer revision of it that a ref names, and no finer precision, that passed `mlxman verify` is here"
        }
        ("--duplicates", _) => "no other copy of it is here that is known to be the same",
        _ => "it does not name it",
    };
    plain.to_owned()
}

/// The JSON Schema of an explanation.
pub fn explain_schema() -> Schema {
    mlxman_manifest::schema_of::<Explanation>()
}
