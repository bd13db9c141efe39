//! `mlxman sync`: bring the registry up to date with the stores.

use std::collections::BTreeMap;

use anyhow::Result;
use mlxman_manifest::HealthStatus;
use mlxman_manifest::registry::{Change, SyncOptions, SyncReport};
use mlxman_store::Severity;
use serde_json::Value;

use crate::args::Sync;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::printer::plain;
use crate::progress::{Watcher, catch_interrupts};
use crate::table::{bytes, plural};

pub(super) fn run(args: Sync, context: &Context) -> Result<Verdict> {
    if args.models.is_empty() && (!args.overrides.is_empty() || args.notes.is_some()) {
        return Err(wrong(
            "--override and --notes change the manifests of the models that are named: name them",
        ));
    }
    let mut overrides = BTreeMap::new();
    for text in &args.overrides {
        let (field, value) =
            text.split_once('=').filter(|(field, _)| !field.is_empty()).ok_or_else(|| {
                wrong(format!("--override {text}: write FIELD=VALUE, such as quantization.label=4bit"))
            })?;
        // What is JSON is taken as such; anything else is text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        overrides.insert(field.to_owned(), value);
    }
    let options = SyncOptions {
        fast: args.fast,
        dry_run: args.dry_run,
        only: args.models.clone(),
        overrides,
        notes: args.notes,
        accept_replaced: args.accept_replaced,
        ..context.looking()
    };
    catch_interrupts();
    let watcher = Watcher::new(&context.printer);
    let stores = context.some_stores()?;
    crate::trash::recover(context, &stores);
    let report = context.registry.sync(&stores, &context.catalog()?, &options, &watcher);
    watcher.finish();
    let report = report?;
    let none_read = !stores.iter().any(|spec| report.has_read(spec));
    for asked in args.models.iter().filter(|_| !none_read) {
        let answered = report.models.iter().any(|model| answers(model, asked));
        if !answered {
            let names: Vec<&str> = report.models.iter().map(|model| model.model.as_str()).collect();
            let near = mlxman_clean::filter::nearest(asked, names, 3);
            let hint = if near.is_empty() { String::new() } else { format!("; near: {}", near.join(", ")) };
            return Err(wrong(format!("no model answers to `{asked}`{hint}")));
        }
    }
    print(&report, context)?;
    Ok(if none_read { Verdict::Failed } else { Verdict::of(report.has_problems()) })
}

/// Whether a row of the report is about what was asked for.
fn answers(model: &mlxman_manifest::registry::Changed, asked: &str) -> bool {
    model.asked_for.iter().any(|name| name == asked)
}

fn print(report: &SyncReport, context: &Context) -> Result<()> {
    let printer = &context.printer;
    if printer.json {
        return printer.json(report);
    }
    for model in &report.models {
        if model.change == Change::Invalid {
            printer.warning(model.why.as_deref().unwrap_or("a manifest cannot be used"));
        }
        if !model.problems.is_empty() {
            printer.warning(&format!(
                "{} is {}: {}",
                model.model,
                model.health.word(),
                model.problems.join(", ")
            ));
        }
    }
    let grave = report.problems.iter().filter(|problem| problem.problem.severity > Severity::Info);
    for problem in grave {
        let place = problem.problem.path.as_deref().map(|path| format!("{path}: ")).unwrap_or_default();
        printer.warning(&format!("{}: {place}{}", problem.problem.kind, problem.problem.message));
    }
    if report.dry_run {
        for model in &report.models {
            let word = match model.change {
                Change::Added => "new",
                Change::Updated => "updated",
                Change::Gone => "gone",
                _ => continue,
            };
            printer.data(&format!("{word:<8} {}", plain(&model.model)))?;
        }
    }
    let mut parts = Vec::new();
    for (change, word) in [
        (Change::Added, "new"),
        (Change::Updated, "updated"),
        (Change::Unchanged, "unchanged"),
        (Change::Gone, "gone"),
        (Change::Invalid, "with a manifest that cannot be used"),
    ] {
        let count = report.count(change);
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let ailing = report
        .models
        .iter()
        .filter(|model| model.health != HealthStatus::Complete && !model.problems.is_empty())
        .count();
    let mut line = plural(report.models.len(), "model");
    if !parts.is_empty() {
        line = format!("{line}: {}", parts.join(", "));
    }
    if ailing > 0 {
        line = format!("{line}; {ailing} not whole");
    }
    if report.hashed_files > 0 {
        line = format!(
            "{line}; hashed {} in {}",
            bytes(report.hashed_bytes),
            plural(report.hashed_files as usize, "file")
        );
    }
    if report.interrupted {
        line = format!("{line}; interrupted: what was hashed is kept, and the next sync goes on from there");
    }
    let end = if report.dry_run { " (nothing was written)" } else { "" };
    printer.status(&format!("{line}{end}"));
    Ok(())
}
