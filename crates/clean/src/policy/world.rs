//! What policies look at: everything in the stores that the filters allow, and what keeps it.

use chrono::{DateTime, Utc};
use mlxman_manifest::registry::{Survey, SurveyedModel};
use mlxman_store::{FoundModel, OwnerId, ProblemKind, Scan, Stray};

use crate::facts::facts_of;
use crate::filter::Facts;
use crate::grace::in_grace;
use crate::guards::{Guards, Of};
use crate::irreplaceable::irreplaceable;
use crate::pins::{Pins, keep};
use crate::plan::{Keep, Rule};
use crate::policy::Policies;
use crate::preview::{Asked, stray_kept};

/// One store, as policies see it.
pub(crate) struct View<'a> {
    /// Its place in the survey.
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) scan: &'a Scan,
    pub(crate) models: Vec<(&'a FoundModel, &'a SurveyedModel)>,
    /// Whether the filters allow each model, and each stray.
    pub(crate) allowed: (Vec<bool>, Vec<bool>),
}

/// A model, by its store's place among the views and its own in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At {
    pub(crate) view: usize,
    pub(crate) model: usize,
}

/// All stores that could be read.
pub(crate) struct World<'a> {
    pub(crate) views: Vec<View<'a>>,
}

impl<'a> World<'a> {
    pub(crate) fn of(survey: &'a Survey, asked: &Asked<'_>) -> Self {
        let read = survey.stores.iter().enumerate();
        let read = read.filter_map(|(index, store)| Some((index, store, store.scan.as_ref().ok()?)));
        let views = read.map(|(index, store, scan)| {
            let models: Vec<_> = scan.models.iter().zip(&store.models).collect();
            let id = store.spec.id();
            let matches = |facts: &Facts<'_>| asked.filters.matches(facts, asked.now);
            let allowed = (
                models.iter().map(|(_, known)| matches(&facts_of(&known.summary))).collect(),
                scan.strays.iter().map(|stray| matches(&facts_of_stray(scan, stray, &id))).collect(),
            );
            View { index, id, scan, models, allowed }
        });
        World { views: views.collect() }
    }

    pub(crate) fn get(&self, at: At) -> (&'a FoundModel, &'a SurveyedModel) {
        self.views[at.view].models[at.model]
    }

    /// Every model, whatever the filters say.
    pub(crate) fn models(&self) -> impl Iterator<Item = At> {
        let views = self.views.iter().enumerate();
        views.flat_map(|(view, of)| (0..of.models.len()).map(move |model| At { view, model }))
    }

    pub(crate) fn is_allowed(&self, at: At) -> bool {
        self.views[at.view].allowed.0[at.model]
    }

    /// How a model is called in a reason: with its store where the other one's is another.
    pub(crate) fn name(&self, at: At, seen_from: At) -> String {
        let (_, known) = self.get(at);
        if at.view == seen_from.view {
            known.summary.model.clone()
        } else {
            format!("{} in {}", known.summary.model, self.views[at.view].id)
        }
    }
}

/// What filters can ask of what is no model.
pub(crate) fn facts_of_stray<'a>(scan: &Scan, stray: &'a Stray, store: &'a str) -> Facts<'a> {
    Facts {
        model: stray.repo_id.as_deref().or(stray.problem.path.as_deref()).unwrap_or_default(),
        repo_id: stray.repo_id.as_deref(),
        store,
        problems: vec![stray.problem.kind.word()],
        present: true,
        size_bytes: Some(stray.size_bytes()),
        reclaimable_bytes: Some(scan.ledger.reclaim(stray.owner).bytes),
        modified: stray.last_modified(),
        ..Facts::default()
    }
}

/// As what a stray may go, if it may: without an owner somebody holds it, or nobody can tell who does.
pub(crate) fn stray_rule(stray: &Stray) -> Option<(Rule, OwnerId)> {
    let rule = match stray.problem.kind {
        ProblemKind::PartialDead => Rule::DeadPartial,
        ProblemKind::OrphanBlob => Rule::Orphan,
        ProblemKind::RepoWithoutSnapshot => Rule::BrokenRepo,
        ProblemKind::StaleLocks => Rule::StaleLocks,
        _ => return None,
    };
    Some((rule, stray.owner?))
}

/// Everything that keeps something.
#[derive(Clone, Copy)]
pub(crate) struct Holds<'a> {
    pub(crate) guards: &'a Guards,
    pub(crate) pins: &'a Pins<'a>,
    pub(crate) policies: &'a Policies,
    pub(crate) now: DateTime<Utc>,
}

impl Holds<'_> {
    /// Why a model that `rule` names is kept, if it is.
    pub(crate) fn model(
        &self,
        of: Of<'_>,
        (found, known): (&FoundModel, &SurveyedModel),
        models: &[(&FoundModel, &SurveyedModel)],
        rule: Rule,
    ) -> Option<(Keep, String)> {
        keep(found, known, of.scan, rule, self.pins)
            .or_else(|| self.guards.keep_model(of, (found, known), models, rule))
            .or_else(|| self.grace(found, known, rule))
            .or_else(|| self.irreplaceable(of.scan, found, known))
    }

    /// Whom a user's filters name was named on purpose; nobody else may take what was perhaps asked for by its commit.
    pub(crate) fn grace(
        &self,
        found: &FoundModel,
        known: &SurveyedModel,
        rule: Rule,
    ) -> Option<(Keep, String)> {
        if matches!(rule, Rule::Filter | Rule::Empty) {
            return None;
        }
        in_grace(found, known, self.policies.grace, self.now)
    }

    pub(crate) fn irreplaceable(
        &self,
        scan: &Scan,
        found: &FoundModel,
        known: &SurveyedModel,
    ) -> Option<(Keep, String)> {
        if self.policies.args().include_irreplaceable {
            return None;
        }
        let why = irreplaceable(scan, found, known)?;
        Some((
            Keep::Irreplaceable,
            format!("it cannot be had again: {why}; --include-irreplaceable lets it go"),
        ))
    }

    /// Why what is no model is kept, if it is.
    pub(crate) fn stray(
        &self,
        of: Of<'_>,
        stray: &Stray,
        models: &[(&FoundModel, &SurveyedModel)],
        rule: Rule,
    ) -> Option<(Keep, String)> {
        stray_kept(of, stray, models, self.guards, rule)
    }
}
