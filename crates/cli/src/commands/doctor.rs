//! `mlxman doctor`: what is wrong in the stores and what mends it, and what this machine verifies models with.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use mlxman_clean::{Applied, Finding, Repairs};
use mlxman_store::{Severity, StoreSpec};
use mlxman_verify::machine;
use mlxman_verify::protocol::EngineInfo;
use serde::Serialize;

use super::verify::{STARTUP, launch};
use crate::args::Doctor;
use crate::context::Context;
use crate::exit::Verdict;
use crate::mending::{carry_out, find};
use crate::printer::plain;
use crate::table::{bytes, plural};
use crate::trash::{confirmed, recover, renew};

/// What `doctor --json` prints.
#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    engine: Engine,
    /// What is wrong in the stores, before anything was mended.
    repairs: Option<Repairs>,
    /// What was mended; null where nothing was to be.
    mended: Option<Applied>,
}

/// What models are verified with.
#[derive(Serialize)]
struct Engine {
    mlxman_version: &'static str,
    registry: PathBuf,
    worker: PathBuf,
    /// What the worker computes with; null where there is none.
    engine: Option<EngineInfo>,
    /// Why there is none.
    engine_problem: Option<String>,
    available_memory_bytes: Option<u64>,
}

pub(super) fn run(args: &Doctor, context: &Context) -> Result<Verdict> {
    let engine = Engine::of(context);
    let has_engine = engine.engine.is_some();
    let stores = match context.some_stores() {
        Ok(stores) => stores,
        Err(why) => {
            context.printer.status(&format!("{why:#}"));
            Vec::new()
        }
    };
    let mut output = Output { engine, repairs: None, mended: None };
    if stores.is_empty() {
        if context.printer.json {
            context.printer.json(&output)?;
        } else {
            context.printer.data(&output.engine.told())?;
        }
        return Ok(Verdict::of(!has_engine));
    }
    recover(context, &stores);
    let found = find(context, &stores)?;
    let repairs = &found.repairs;
    if !context.printer.json {
        context.printer.data(&output.engine.told())?;
        context.printer.data(&told(repairs))?;
    }
    let mendable = repairs.mendable().count();
    let wrong = |finding: &&Finding| finding.problem.severity > Severity::Info;
    let verdict = if !args.fix || args.dry_run {
        if mendable > 0 {
            context.printer.status(&format!(
                "{} can be mended here; nothing was touched; `mlxman doctor --fix` does it",
                plural(mendable, "problem")
            ));
        }
        Verdict::of(repairs.findings.iter().any(|finding| wrong(&finding)))
    } else if mendable == 0 {
        context.printer.status("there is nothing that can be mended here; nothing was touched");
        Verdict::of(repairs.findings.iter().any(|finding| wrong(&finding)))
    } else if !args.yes && !confirmed(context, &question(mendable))? {
        context.printer.status("nothing was touched");
        Verdict::of(true)
    } else {
        let mut mended = Applied::at(context.now);
        let went_wrong = carry_out(context, &found, &stores, &mut mended)?;
        let touched: Vec<StoreSpec> = stores
            .iter()
            .filter(|spec| mended.stores.iter().any(|one| one.store == spec.id()))
            .cloned()
            .collect();
        let renewed = renew(context, &touched);
        print(&mended, context)?;
        let done = mended.stores.iter().any(|store| !store.done.is_empty());
        let skipped = mended.stores.iter().any(|store| !store.skipped.is_empty());
        output.mended = Some(mended);
        // One repair may end several problems.
        let left = find(context, &stores)?.repairs.findings.iter().any(|finding| wrong(&finding));
        if went_wrong && !done { Verdict::Failed } else { Verdict::of(left || skipped || !renewed) }
    };
    if context.printer.json {
        output.repairs = Some(found.repairs);
        context.printer.json(&output)?;
    }
    Ok(verdict)
}

fn question(count: usize) -> String {
    format!("Mend {} as shown? `mlxman undo` takes it back.", plural(count, "problem"))
}

impl Engine {
    fn of(context: &Context) -> Self {
        let probed = mlxman_verify::probe(&launch(context, STARTUP));
        Engine {
            mlxman_version: env!("CARGO_PKG_VERSION"),
            registry: context.registry.home().to_owned(),
            worker: context.places.worker(),
            engine_problem: probed.as_ref().err().cloned(),
            engine: probed.ok(),
            available_memory_bytes: machine::available_memory(),
        }
    }

    fn told(&self) -> String {
        let engine = self.engine.clone().unwrap_or_default();
        let unknown = || "not known".to_owned();
        let lines = [
            ("mlxman", self.mlxman_version.to_owned()),
            ("registry", self.registry.display().to_string()),
            ("worker", self.worker.display().to_string()),
            ("MLX", self.engine_problem.clone().unwrap_or(engine.mlx_version)),
            ("device", if engine.device.is_empty() { "none".to_owned() } else { engine.device }),
            ("BLAS", engine.blas.unwrap_or_else(unknown)),
            ("device memory", engine.memory_bytes.map_or_else(unknown, bytes)),
            ("free memory", self.available_memory_bytes.map_or_else(unknown, bytes)),
        ];
        lines.iter().map(|(name, value)| format!("{name:<14} {}\n", plain(value))).collect()
    }
}

/// The findings, store by store. Commands stand on lines of their own, whole, to be copied.
fn told(repairs: &Repairs) -> String {
    let mut out = String::new();
    let of = |store: &str| {
        repairs.findings.iter().filter(move |finding| finding.store == store).collect::<Vec<_>>()
    };
    let known = |finding: &&Finding| repairs.stores.iter().any(|store| store.store == finding.store);
    let others: Vec<&Finding> = repairs.findings.iter().filter(|finding| !known(finding)).collect();
    findings(&others, &mut out);
    for store in &repairs.stores {
        let models = plural(usize::try_from(store.models).unwrap_or(usize::MAX), "model");
        let takes =
            store.usage.map(|usage| format!(", {}", bytes(usage.allocated_bytes))).unwrap_or_default();
        let notes =
            of(&store.store).iter().filter(|finding| finding.problem.severity == Severity::Info).count();
        let wrong = match (usize::try_from(store.problems).unwrap_or(usize::MAX), notes) {
            (0, 0) => "nothing is wrong".to_owned(),
            (0, notes) => format!("nothing is wrong, {}", plural(notes, "note")),
            (count, 0) => plural(count, "problem"),
            (count, notes) => format!("{}, {}", plural(count, "problem"), plural(notes, "note")),
        };
        let _ = writeln!(out, "\n{}: {models}{takes}, {wrong}", plain(&store.store));
        findings(&of(&store.store), &mut out);
    }
    if repairs.useless_bytes > 0 {
        let useless = repairs.useless_bytes;
        let _ = writeln!(out, "\n{} ({useless} bytes) are of no use as it is", bytes(useless));
    }
    out
}

fn findings(findings: &[&Finding], out: &mut String) {
    for finding in findings {
        let place = if finding.place.is_empty() { "." } else { &finding.place };
        let costs = match finding.useless_bytes {
            0 => String::new(),
            useless => format!(", {} of no use", bytes(useless)),
        };
        let _ = writeln!(
            out,
            "\n{}\n  {}{costs}: {}",
            plain(place),
            finding.problem.kind,
            plain(&finding.problem.message)
        );
        if let Some(repair) = &finding.repair {
            let _ = writeln!(out, "  --fix: {}", plain(&repair.does));
        }
        if let Some(held) = &finding.held {
            let _ = writeln!(out, "  not now: {}", plain(held));
        }
        if let Some(command) = &finding.command {
            let _ = writeln!(out, "  run: {}", plain(command));
        }
    }
}

fn print(mended: &Applied, context: &Context) -> Result<()> {
    let printer = &context.printer;
    for store in &mended.stores {
        if !printer.json {
            for row in &store.done {
                printer.data(&format!("mended {}", plain(&row.what)))?;
            }
        }
        for skipped in &store.skipped {
            printer.refusal(&format!("{} was left: {}", skipped.what, skipped.reason));
        }
        for left in &store.left {
            printer.status(&format!("{} stays: {}", left.what, left.reason));
        }
        if let Some(id) = &store.id {
            printer.status(&format!(
                "{} in {}; `{}` takes it back",
                plural(store.done.len(), "repair"),
                store.store,
                context.command(&format!("undo {id}"), [store.store.as_str()])
            ));
        }
    }
    Ok(())
}
