//! `mlxman list`: the models of the registry.

use std::cell::Cell;
use std::collections::BTreeSet;

use anyhow::Result;
use mlxman_manifest::registry::{Contents, Row, StoreProblem, unusable};
use mlxman_manifest::{Summary, VerifiedSummary};
use mlxman_store::{Severity, StoreSpec};
use serde::{Serialize, Serializer};

use crate::args::{List, Sort};
use crate::context::Context;
use crate::exit::Verdict;
use crate::select::{document, filter_set, matching, tell_unknown};
use crate::table::{age, bytes, count, last_use, number, plural, rate, reclaim, render, text};

/// What `list --json` prints.
#[derive(Serialize)]
struct Output<'a> {
    schema: &'static str,
    models: Documents<'a>,
    problems: Vec<&'a StoreProblem>,
    totals: Totals,
}

#[derive(Serialize)]
struct Totals {
    models: usize,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocated_bytes: Option<u64>,
}

pub(super) fn run(args: &List, context: &Context) -> Result<Verdict> {
    let filters = filter_set(context, &args.filters)?;
    let contents = context.contents()?;
    let mut rows = matching(context, &contents, &filters);
    tell_unknown(context, &contents, &filters)?;
    match args.sort {
        Sort::Name => {}
        Sort::Size => rows.sort_by_key(|row| std::cmp::Reverse(row.summary.size_bytes)),
        Sort::Used => rows.sort_by_key(|row| row.summary.last_used().map(|(time, _)| time)),
    }
    let lost: Vec<StoreProblem> = contents.unusable.iter().map(|(path, why)| unusable(path, why)).collect();
    // What is no model answers to no filter of models, only to --store.
    let only_stores = args.filters.args(Vec::new()) == Default::default();
    let problems: Vec<&StoreProblem> = if only_stores {
        let of_places = contents.problems.iter().filter(|problem| is_chosen(context, &problem.store));
        store_problems(context, &contents).chain(of_places).chain(&lost).collect()
    } else {
        Vec::new()
    };
    // Of an unfiltered list the stores' own use is known; models may share files, so their sum is too much.
    let used = filters.is_empty().then(|| used_by(&contents, &rows)).flatten();
    let mut ailing = rows.iter().any(|row| {
        (row.summary.ailing && row.summary.present) || row.invalid.is_some() || row.away.is_some()
    }) || problems.iter().any(|problem| problem.problem.severity > Severity::Info);
    if context.printer.json {
        let models = Documents { context, rows: &rows, lost: Cell::new(false) };
        let size_bytes =
            rows.iter().filter(|row| row.summary.present).map(|row| row.summary.size_bytes).sum();
        let totals = Totals { models: rows.len(), size_bytes, allocated_bytes: used };
        let output = Output { schema: "mlxman-list-1", models, problems, totals };
        context.printer.json(&output)?;
        ailing |= output.models.lost.get();
    } else {
        table(context, &contents, &rows, &problems, used, args.verified)?;
    }
    Ok(Verdict::of(ailing))
}

fn store_problems<'a>(
    context: &'a Context,
    contents: &'a Contents,
) -> impl Iterator<Item = &'a StoreProblem> {
    contents.stores.iter().filter(|(id, _)| is_chosen(context, id)).flat_map(|(_, record)| &record.problems)
}

/// The whole manifests, read one after the other while they are printed, so that a long list needs no more memory than
/// a short one.
struct Documents<'a> {
    context: &'a Context,
    rows: &'a [&'a Row],
    /// Whether one could not be read that the index had as good: it was changed just now.
    lost: Cell<bool>,
}

impl Serialize for Documents<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows.iter().map(|row| {
            let (document, why) = document(self.context, row);
            self.lost.set(self.lost.get() | why.is_some());
            document
        }))
    }
}

/// Whether `--store` means this store.
fn is_chosen(context: &Context, id: &str) -> bool {
    context.store_words.is_empty()
        || context.store_words.iter().any(|word| {
            word == id
                || id.parse::<StoreSpec>().is_ok_and(|spec| {
                    spec.kind().word() == word || spec.root().to_string_lossy().contains(word.as_str())
                })
        })
}

/// What the stores of these rows took on their disks at the last sync, where that is known of all of them.
fn used_by(contents: &Contents, rows: &[&Row]) -> Option<u64> {
    let stores: BTreeSet<&str> =
        rows.iter().filter(|row| row.summary.present).map(|row| row.summary.store.as_str()).collect();
    stores.into_iter().map(|id| Some(contents.stores.get(id)?.usage?.allocated_bytes)).sum()
}

fn table(
    context: &Context,
    contents: &Contents,
    rows: &[&Row],
    problems: &[&StoreProblem],
    used: Option<u64>,
    verified: bool,
) -> Result<()> {
    let printer = &context.printer;
    if rows.is_empty() && contents.rows.is_empty() {
        printer.status("the registry is empty: run `mlxman sync --fast` to find the models of this machine");
    }
    let several = rows.iter().any(|row| row.summary.store != rows[0].summary.store);
    let columns = [
        text("MODEL", 0),
        text("QUANT", 0),
        text("FORMAT", 6),
        text("ARCH", 5),
        number("PARAMS", 4),
        number("SIZE", 0),
        number("FREES", 3),
        number("USED", 2),
        text("HEALTH", 1),
        text("VERIFIED", if verified { 0 } else { 9 }),
        number("TOK/S", if verified { 0 } else { 9 }),
        text("DTYPE", if verified { 0 } else { 9 }),
        text("CONTENTS", if verified { 0 } else { 9 }),
        text("TAGS", 7),
        text("STORE", 8),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let summary = &row.summary;
            let shown = summary.verified.as_ref().filter(|_| verified);
            vec![
                name(summary),
                quantization(summary),
                summary.format.word().to_owned(),
                summary.arch.clone().unwrap_or_default(),
                count(summary.params),
                bytes(summary.size_bytes),
                reclaim(summary.reclaimable_bytes, summary.reclaimable_at_least),
                used_ago(summary, context),
                health(row),
                shown.map_or_else(String::new, |verified| verdict(verified, context)),
                shown
                    .filter(|verified| !verified.stale)
                    .map_or_else(String::new, |one| rate(one.generation_tps)),
                shown
                    .filter(|verified| !verified.stale && verified.generation_tps.is_some())
                    .and_then(|verified| verified.dtype.clone())
                    .unwrap_or_default(),
                summary.integrity.as_ref().filter(|_| verified).map_or_else(String::new, |found| {
                    let stale = if found.stale { "stale: " } else { "" };
                    format!("{stale}{} {}", found.verdict.word(), age(Some(found.at), context.now))
                }),
                summary.tags.join(","),
                if several { summary.store.clone() } else { String::new() },
            ]
        })
        .collect();
    if !rows.is_empty() {
        printer.data(&render(printer, &columns, &cells))?;
    }
    let grave: Vec<&&StoreProblem> =
        problems.iter().filter(|problem| problem.problem.severity > Severity::Info).collect();
    if !grave.is_empty() {
        let columns = [text("PROBLEM", 0), text("PATH", 0), number("FREES", 2), text("WHAT TO DO", 1)];
        let cells: Vec<Vec<String>> = grave
            .iter()
            .map(|problem| {
                vec![
                    problem.problem.kind.to_string(),
                    problem.problem.path.clone().unwrap_or_else(|| problem.store.clone()),
                    reclaim(problem.reclaimable_bytes, problem.reclaimable_at_least),
                    problem.problem.message.clone(),
                ]
            })
            .collect();
        printer.data("")?;
        printer.data(&render(printer, &columns, &cells))?;
    }
    if !rows.is_empty() {
        let size: u64 = rows.iter().filter(|row| row.summary.present).map(|row| row.summary.size_bytes).sum();
        let models = plural(rows.len(), "model");
        printer.status(&match used {
            Some(used) => format!("{models}; their stores take {}", bytes(used)),
            // Two models may share files.
            None if rows.len() > 1 => format!("{models}, up to {}", bytes(size)),
            None => format!("{models}, {}", bytes(size)),
        });
    }
    Ok(())
}

/// The name, with what a reader should see at once.
fn name(summary: &Summary) -> String {
    let mut name = summary.model.clone();
    if summary.pinned {
        name.push_str(" (pinned)");
    }
    if summary.detached == Some(true) {
        name.push_str(" (detached)");
    }
    name
}

/// The label; one that only a name says is in question.
fn quantization(summary: &Summary) -> String {
    let label = summary.quantization.clone().unwrap_or_else(|| summary.quantization_variants.join(","));
    if summary.quantization_from_name { format!("{label}?") } else { label }
}

/// What the newest verification found, and how long ago.
fn verdict(verified: &VerifiedSummary, context: &Context) -> String {
    let ago = age(Some(verified.at), context.now);
    match (verified.stale, verified.verdict) {
        (true, _) => format!("stale: {} {ago}", verified.verdict.word()),
        (false, mlxman_manifest::Verdict::Pass) => format!("{} {ago}", verified.level.word()),
        (false, other) => format!("{}: {} {ago}", other.word(), verified.level.word()),
    }
}

fn used_ago(summary: &Summary, context: &Context) -> String {
    let (time, by) = summary.last_used().unzip();
    last_use(time, by, context.now)
}

fn health(row: &Row) -> String {
    if row.away.is_some() {
        return "store away".to_owned();
    }
    if row.invalid.is_some() {
        return "manifest invalid".to_owned();
    }
    if !row.summary.present {
        return "gone".to_owned();
    }
    match row.summary.problems.first() {
        Some(first) if row.summary.ailing => format!("{}: {first}", row.summary.health.word()),
        _ => row.summary.health.word().to_owned(),
    }
}
