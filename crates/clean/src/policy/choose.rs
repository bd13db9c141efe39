//! Asking all policies, in an order in which none takes away what another one relies on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mlxman_manifest::FileRecord;
use mlxman_manifest::registry::SurveyedModel;
use mlxman_store::{OwnerId, ProblemKind};

use super::budget::{self, Budget};
use super::keep_last::{Rank, ranks};
use super::world::{At, Holds, World, stray_rule};
use super::{duplicates, superseded};
use crate::filter::quantity::format_exact_age;
use crate::grace::LastUse;
use crate::guards::Of;
use crate::plan::{Keep, Kept, Reason, Rule, Shortfall};
use crate::preview::safe_to_go;

/// What the policies name: by the store's place in the survey, and the model's or stray's in the store.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) models: HashMap<(usize, usize), Vec<Reason>>,
    pub(crate) strays: HashMap<(usize, usize), Vec<Reason>>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) shortfalls: Vec<Shortfall>,
}

/// What a policy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    Model(At),
    /// By its store's place among the views, and its own.
    Stray(usize, usize),
}

impl Subject {
    pub(crate) fn view(self) -> usize {
        match self {
            Subject::Model(at) => at.view,
            Subject::Stray(view, _) => view,
        }
    }
}

/// A run of all policies.
pub(crate) struct Run<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) holds: &'a Holds<'a>,
    named: BTreeMap<Subject, Vec<Reason>>,
    told: HashSet<Subject>,
    kept: Vec<(Subject, Kept)>,
    /// What `--keep-last` says of each snapshot.
    ranks: BTreeMap<At, Rank>,
    /// What others go for: it has to stay.
    relied_on: BTreeSet<At>,
}

/// Asks the policies about everything that the filters allow.
pub(crate) fn choose(
    world: &World<'_>,
    holds: &Holds<'_>,
    files: &dyn Fn(&SurveyedModel) -> Vec<FileRecord>,
) -> Choice {
    let args = holds.policies.args();
    let mut run = Run {
        world,
        holds,
        named: BTreeMap::new(),
        told: HashSet::new(),
        kept: Vec::new(),
        ranks: args.keep_last.map(|count| ranks(world, count)).unwrap_or_default(),
        relied_on: BTreeSet::new(),
    };
    run.each_by_itself();
    // What goes because something else stays comes after what goes by itself, so that the other one does stay.
    if args.superseded {
        superseded::name(&mut run);
    }
    if args.duplicates {
        duplicates::name(&mut run, files);
    }
    let mut choice = Choice::default();
    for one in Budget::all(&run) {
        choice.shortfalls.extend(budget::meet(&mut run, &one));
    }
    choice.shortfalls.extend(budget::untold(&run));
    // What one policy has to leave alone, another may name all the same.
    let kept = run.kept.into_iter().filter(|(subject, _)| !run.named.contains_key(subject));
    choice.kept = kept.map(|(_, kept)| kept).collect();
    for (subject, reasons) in run.named {
        match subject {
            Subject::Model(at) => choice.models.insert((world.views[at.view].index, at.model), reasons),
            Subject::Stray(view, stray) => choice.strays.insert((world.views[view].index, stray), reasons),
        };
    }
    choice
}

impl Run<'_> {
    pub(crate) fn is_named(&self, subject: Subject) -> bool {
        self.named.contains_key(&subject)
    }

    pub(crate) fn is_relied_on(&self, at: At) -> bool {
        self.relied_on.contains(&at)
    }

    /// From here on it stays, for another one goes because of it.
    pub(crate) fn rely_on(&mut self, at: At) {
        self.relied_on.insert(at);
    }

    /// What is named so far, by its store.
    pub(crate) fn owners(&self, view: usize) -> Vec<OwnerId> {
        let of = &self.world.views[view];
        let named = self.named.keys().filter(|subject| subject.view() == view);
        let owner = |subject: &Subject| match *subject {
            Subject::Model(at) => Some(of.models[at.model].0.owner),
            Subject::Stray(_, stray) => of.scan.strays[stray].owner,
        };
        named.filter_map(owner).collect()
    }

    /// Names it for these reasons, unless something keeps it; then that is told. Answers whether it goes.
    pub(crate) fn name(&mut self, subject: Subject, reasons: Vec<Reason>) -> bool {
        let mut kept = None;
        let mut holding = Vec::new();
        for reason in reasons {
            match self.keeps(subject, reason.rule) {
                None => holding.push(reason),
                Some(why) => kept = kept.or(Some(why)),
            }
        }
        if !holding.is_empty() {
            self.named.entry(subject).or_default().append(&mut holding);
            return true;
        }
        if let Some(kept) = kept {
            self.tell(subject, kept);
        }
        false
    }

    /// Takes back a name that turned out to be needless.
    pub(crate) fn unname(&mut self, subject: Subject) {
        self.named.remove(&subject);
    }

    /// Says what keeps it: once, by what was met first.
    pub(crate) fn tell(&mut self, subject: Subject, (rule, reason): (Keep, String)) {
        if self.is_named(subject) || !self.told.insert(subject) {
            return;
        }
        let view = &self.world.views[subject.view()];
        let model = match subject {
            Subject::Model(at) => view.models[at.model].1.summary.model.clone(),
            Subject::Stray(_, stray) => view.scan.strays[stray].problem.path.clone().unwrap_or_default(),
        };
        self.kept.push((subject, Kept { model, store: view.id.clone(), rule, reason }));
    }

    fn keeps(&self, subject: Subject, rule: Rule) -> Option<(Keep, String)> {
        let view = &self.world.views[subject.view()];
        let of = Of { index: view.index, scan: view.scan };
        match subject {
            Subject::Stray(_, stray) => self.holds.stray(of, &view.scan.strays[stray], &view.models, rule),
            Subject::Model(at) => {
                // The more general reasons come first: a pin says more than a rank.
                let kept = self.holds.model(of, self.world.get(at), &view.models, rule);
                kept.or_else(|| self.ranks.get(&at)?.keeps(rule)).or_else(|| {
                    let reason = "another one goes because this one stays";
                    self.is_relied_on(at).then(|| (Keep::StandsForAnother, reason.to_owned()))
                })
            }
        }
    }

    /// What policies say that look at one thing alone, or at one repo.
    fn each_by_itself(&mut self) {
        let (policies, now) = (self.holds.policies, self.holds.now);
        let args = policies.args();
        for at in self.world.models().filter(|at| self.world.is_allowed(*at)) {
            let (found, known) = self.world.get(at);
            let mut reasons = Vec::new();
            let mut add = |rule, reason| reasons.push(Reason { rule, reason });
            match safe_to_go(found, self.world.views[at.view].scan) {
                Some((Rule::Detached, reason)) if args.detached => add(Rule::Detached, reason),
                Some((Rule::Empty, reason)) if args.broken => add(Rule::Empty, reason),
                _ => {}
            }
            let dangling = found.problems.iter().find(|one| one.kind == ProblemKind::DanglingLink);
            if let Some(link) = dangling.filter(|_| args.broken) {
                let path = link.path.as_deref().unwrap_or_default().escape_debug();
                add(Rule::Broken, format!("the blob of its `{path}` is gone"));
            }
            if let (Some(age), Some(used)) = (policies.older_than, LastUse::of(known))
                && now.signed_duration_since(used.time) > age
            {
                add(
                    Rule::OlderThan,
                    format!("{}, and --older-than is {}", used.describe(now), format_exact_age(age)),
                );
            }
            let mut needed = None;
            match self.ranks.get(&at) {
                Some(Rank::Beyond(reason)) => add(Rule::KeepLast, reason.clone()),
                Some(Rank::Needed(reason)) => needed = Some((Keep::NotReplaced, reason.clone())),
                _ => {}
            }
            if !reasons.is_empty() {
                self.name(Subject::Model(at), reasons);
            }
            if let Some(kept) = needed {
                self.tell(Subject::Model(at), kept);
            }
        }
        for (index, view) in self.world.views.iter().enumerate() {
            for (at, stray) in view.scan.strays.iter().enumerate() {
                let subject = Subject::Stray(index, at);
                if !view.allowed.1[at] {
                    continue;
                }
                if args.partials && stray.problem.kind == ProblemKind::PartialLive {
                    self.tell(subject, (Keep::InUse, stray.problem.message.clone()));
                }
                let Some((rule, _)) = stray_rule(stray) else { continue };
                let is_asked = match rule {
                    Rule::DeadPartial => args.partials,
                    Rule::Orphan => args.orphans,
                    _ => args.broken,
                };
                if is_asked {
                    self.name(subject, vec![Reason { rule, reason: stray.problem.message.clone() }]);
                }
            }
        }
    }
}
