//! `mlxman path`: the directory to load a model from.

use std::path::PathBuf;

use anyhow::{Result, bail};
use mlxman_manifest::registry::SurveyedModel;
use mlxman_manifest::{HealthStatus, Summary};
use mlxman_store::{FoundModel, Scan, StoreSpec};
use serde::Serialize;

use crate::args::PathArgs;
use crate::context::Context;
use crate::exit::{Verdict, wrong};

/// What `path --json` prints.
#[derive(Serialize)]
struct Output {
    model: String,
    store: String,
    path: PathBuf,
    revision: Option<String>,
    health: HealthStatus,
}

/// A model that a name means, as it lies on the disk now.
pub(super) struct Resolved {
    pub(super) path: PathBuf,
    pub(super) summary: Summary,
}

impl Resolved {
    pub(super) fn is_whole(&self) -> bool {
        self.summary.is_sound()
    }
}

pub(super) fn run(args: &PathArgs, context: &Context) -> Result<Verdict> {
    let resolved = resolve(&args.model, context)?;
    let whole = resolved.is_whole();
    let Resolved { path, summary } = resolved;
    context.record_use(&summary.store, &summary.key, "path");
    if context.printer.json {
        context.printer.json(&Output {
            model: summary.model,
            store: summary.store,
            path,
            revision: summary.revision,
            health: summary.health,
        })?;
    } else {
        let text = path.to_string_lossy();
        if text.contains('\n') {
            // Whoever reads lines would take it for two paths.
            bail!("the path {text:?} has a line's end in it; --json prints it safely");
        }
        context.printer.data(&text)?;
    }
    Ok(Verdict::of(!whole))
}

/// Looks at the stores themselves, so that what it answers is there now.
pub(super) fn resolve(asked: &str, context: &Context) -> Result<Resolved> {
    let mut stores = match context.some_stores() {
        Ok(stores) => stores,
        // The registry may know of others.
        Err(_) if !context.store_given => Vec::new(),
        Err(error) => return Err(error),
    };
    if !context.store_given {
        let rows = context.contents()?.rows.into_iter();
        let others = rows.filter(|row| row.summary.present && row.summary.answers_to(asked));
        for spec in others.filter_map(|row| row.summary.store.parse::<StoreSpec>().ok()) {
            if !stores.contains(&spec) {
                stores.push(spec);
            }
        }
        if stores.is_empty() {
            let _ = context.some_stores()?;
        }
    }
    let survey = context.registry.survey(&stores, &context.catalog()?, &context.looking())?;
    let mut found: Vec<(&Scan, &FoundModel, &SurveyedModel)> = Vec::new();
    for store in &survey.stores {
        match &store.scan {
            Ok(scan) => {
                found
                    .extend(scan.models.iter().zip(&store.models).map(|(model, known)| (scan, model, known)));
            }
            Err(error) => context.printer.warning(&error.to_string()),
        }
    }
    let all: Vec<&Summary> = found.iter().map(|(_, _, known)| &known.summary).collect();
    let near = mlxman_clean::filter::nearest(asked, all.iter().map(|one| one.model.as_str()), 3);
    let unknown = if near.is_empty() {
        wrong(format!("no model answers to `{asked}`; `mlxman list` shows those that there are"))
    } else {
        wrong(format!("no model answers to `{asked}`; near: {}", near.join(", ")))
    };
    found.retain(|(_, _, known)| known.summary.answers_to(asked));
    if found.is_empty() {
        return Err(unknown);
    }
    // The newest complete snapshot: what `main` names first, then the one written last.
    let whole = |known: &SurveyedModel| known.summary.is_sound();
    found.sort_by_key(|(_, model, known)| {
        let current = known.summary.current != Some(false);
        let exact = known.summary.model == asked;
        std::cmp::Reverse((whole(known), exact, current, model.last_modified()))
    });
    let (scan, model, known) = found[0];
    let others =
        found.iter().filter(|(other, _, also)| whole(also) == whole(known) && other.spec != scan.spec);
    if let Some((other, ..)) = others.into_iter().next() {
        context.printer.status(&format!("`{asked}` is also in {}; --store chooses", other.spec));
    }
    let path = scan.dir_of(model);
    let summary = &known.summary;
    if summary.health != HealthStatus::Complete {
        context.printer.warning(&format!(
            "{} is {}: {}; `mlxman show {}` says more",
            summary.model,
            summary.health.word(),
            summary.problems.join(", "),
            summary.model
        ));
    }
    if summary.is_damaged() {
        context.printer.warning(&format!(
            "a check found contents of {} damaged; `mlxman verify --level integrity {}` names them",
            summary.model, summary.model
        ));
    }
    Ok(Resolved { path, summary: summary.clone() })
}
