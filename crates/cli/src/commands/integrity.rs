//! `mlxman verify --level integrity`: are the contents those that hashes name.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use mlxman_clean::filter::quantity::format_age;
use mlxman_manifest::registry::Checks;
use mlxman_manifest::{Integrity, Verdict as Found, VerifiedModel};
use mlxman_verify::Results;
use mlxman_verify::integrity::{IntegrityOutcome, IntegrityPlan, IntegritySummary, run as check};

use super::verify::{Tasks, choose, duration, in_order, keep_absent, looking, tasks};
use crate::args::Verify;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::progress::{Reading, catch_interrupts};
use crate::table::{bytes, number, plural, render, text};

pub(super) fn run(args: &Verify, context: &Context) -> Result<Verdict> {
    let others = [
        (args.record_answers, "--record-answers"),
        (args.answers.is_some(), "--answers"),
        (args.bench, "--bench"),
        (args.quick, "--quick"),
    ];
    if let Some((_, name)) = others.iter().find(|(given, _)| *given) {
        return Err(wrong(format!("{name} needs a model that is loaded; --level integrity loads none")));
    }
    let budget = args.budget.as_deref().map(|text| duration("--budget", text)).transpose()?;
    catch_interrupts();
    let (chosen, _) = choose(args, context)?;
    let (specs, options) = looking(&chosen, context);
    let survey = context.registry.survey(&specs, &context.catalog()?, &options)?;
    let Tasks { tasks, rows, order, unread } = tasks(&chosen, &survey, context);
    let (registry, printer, now) = (&context.registry, &context.printer, context.now);
    let known = registry.known_hashes();
    let repo = |at: usize| rows.get(at).copied().flatten().and_then(|row| row.summary.repo_id.clone());
    let cores = || std::thread::available_parallelism().map_or(2, usize::from);
    let plan = IntegrityPlan {
        again: args.again,
        budget,
        threads: args.jobs.map_or_else(cores, usize::from),
        known: &known,
        repo: &repo,
        now,
    };
    let unkept = AtomicBool::new(false);
    let trouble = |what: &str, error: &dyn std::fmt::Display| {
        printer.warning(&format!("{what} is not kept: {error}"));
        unkept.store(true, Ordering::Relaxed);
    };
    let done = |at: usize, outcome: &IntegrityOutcome| {
        if outcome.interrupted {
            return;
        }
        if let Err(error) = registry.keep_verification(&outcome.result, rows.get(at).copied().flatten()) {
            trouble(&format!("what was found of {}", outcome.result.model), &error);
        }
    };
    let keep = |checks: &mut Checks| {
        if let Err(error) = registry.keep_checks(checks, now) {
            trouble("what was checked", &error);
        }
    };
    let reading = Reading::new(printer, &done, &keep);
    let mut checks = registry.checks();
    let run = check(&tasks, &plan, &mut checks, &reading);
    reading.finish();
    let interrupted =
        run.outcomes.len() < tasks.len() || run.outcomes.iter().any(|outcome| outcome.interrupted);
    if !keep_absent(&order, context) {
        unkept.store(true, Ordering::Relaxed);
    }
    let results = in_order(order, run.outcomes.into_iter().map(|outcome| outcome.result));
    let of = |found: Found| results.iter().filter(|result| result.verification.verdict == found).count();
    let (passed, failed, skipped) = (of(Found::Pass), of(Found::Fail), of(Found::Skipped));
    // A scrub does what it has the time for: what it did not get to is no problem.
    let problems =
        failed > 0 || (budget.is_none() && skipped > 0) || interrupted || unread > 0 || unkept.into_inner();
    if printer.json {
        printer.json(&Results { integrity: Some(run.summary), ..Results::new(results) })?;
    } else {
        table(&results, context)?;
        if !results.is_empty() {
            let mut line = format!("{}: {passed} passed", plural(results.len(), "model"));
            for (count, word) in [(failed, "failed"), (skipped, "skipped")] {
                if count > 0 {
                    line = format!("{line}, {count} {word}");
                }
            }
            let end = if interrupted { "; interrupted, what was checked is kept" } else { "" };
            printer.status(&format!("{line}{end}"));
            printer.status(&share(&run.summary, context));
        }
    }
    Ok(if tasks.is_empty() && unread > 0 { Verdict::Failed } else { Verdict::of(problems) })
}

/// What share of the bytes is known to be whole, and since when.
fn share(all: &IntegritySummary, context: &Context) -> String {
    let percent = if all.bytes == 0 { 100.0 } else { 100.0 * all.whole_bytes as f64 / all.bytes as f64 };
    // Not all where something is left.
    let percent = if all.whole_bytes < all.bytes { percent.min(99.9) } else { percent };
    let mut line = format!("{percent:.1}% of {} found whole", bytes(all.bytes));
    if let Some(oldest) = all.oldest_check {
        let ago = context.now - oldest;
        let ago = if ago.num_seconds() < 1 { "now".to_owned() } else { format!("{} ago", format_age(ago)) };
        line = format!("{line}, the oldest check {ago}");
    }
    if all.read_bytes > 0 && all.seconds > 0.0 {
        let rate = bytes((all.read_bytes as f64 / all.seconds) as u64);
        line = format!("{line}; {} read in {:.1} s, {rate}/s", bytes(all.read_bytes), all.seconds);
    }
    line
}

fn table(results: &[VerifiedModel], context: &Context) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let columns = [
        text("MODEL", 0),
        text("VERDICT", 0),
        text("LEVEL", 2),
        number("FILES", 4),
        number("BYTES", 3),
        number("DAMAGED", 0),
        number("MISSING", 0),
        number("CHANGED", 0),
        number("UNCHECKABLE", 0),
        text("WHY", 1),
    ];
    let cells: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let found = &result.verification;
            let none = Integrity::default();
            let integrity = found.integrity.as_ref().unwrap_or(&none);
            let why: Vec<String> = found.reason.iter().chain(&found.notes).cloned().collect();
            vec![
                result.model.clone(),
                found.verdict.word().to_owned(),
                found.level.word().to_owned(),
                integrity.files.to_string(),
                bytes(integrity.bytes),
                integrity.damaged.len().to_string(),
                integrity.missing.len().to_string(),
                integrity.changed.len().to_string(),
                integrity.uncheckable.len().to_string(),
                why.join("; "),
            ]
        })
        .collect();
    context.printer.data(&render(&context.printer, &columns, &cells))?;
    Ok(())
}
