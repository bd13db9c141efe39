//! `mlxman stores`: the stores, with used and free space.

use anyhow::Result;
use mlxman_manifest::registry::Contents;
use mlxman_store::{Filesystem, Late, Scan, ScanError, StoreSpec, Usage, layout_of, watch};
use serde::Serialize;

use crate::args::Filters;
use crate::context::Context;
use crate::exit::Verdict;
use crate::table::{bytes, number, render, text};

/// What `stores --json` prints of one.
#[derive(Serialize)]
struct Output {
    store: String,
    kind: &'static str,
    path: std::path::PathBuf,
    models: usize,
    usage: Option<Usage>,
    filesystem: Option<Filesystem>,
    problem: Option<mlxman_store::Problem>,
}

pub(super) fn run(context: &Context) -> Result<Verdict> {
    // --store was resolved; a word that is no filter would say so here.
    crate::select::filter_set(context, &Filters::default())?;
    let specs = context.some_stores()?;
    let silent = context.silent_stores();
    let asked: Vec<StoreSpec> = specs.iter().filter(|spec| !silent.contains(spec)).cloned().collect();
    let mut scans = watch(asked, context.store_limit, |spec: StoreSpec, progress| {
        layout_of(spec.kind()).scan(&spec, progress)
    })
    .into_iter();
    // The stores can be shown without what the registry remembers of them.
    let contents = context.contents().unwrap_or_default();
    let stores: Vec<Output> = specs
        .iter()
        .map(|spec| {
            let scan = if silent.contains(spec) { None } else { scans.next() };
            let scan = scan
                .unwrap_or(Err(Late::TooSlow(context.store_limit)))
                .unwrap_or_else(|late| Err(ScanError::late(spec, late)));
            of(
                spec,
                scan.and_then(|scan| {
                    if contents.is_replaced(&scan) { Err(Contents::replaced(spec)) } else { Ok(scan) }
                }),
            )
        })
        .collect();
    let read = stores.iter().filter(|store| store.problem.is_none()).count();
    let problems = stores.iter().any(|store| store.problem.is_some());
    if context.printer.json {
        context.printer.json(&stores)?;
        return Ok(Verdict::of_stores(read, problems));
    }
    let columns = [
        text("KIND", 0),
        number("MODELS", 0),
        number("USED", 0),
        number("FREE", 0),
        text("ON", 1),
        text("PATH", 0),
    ];
    let cells: Vec<Vec<String>> = stores
        .iter()
        .map(|store| {
            let filesystem = store.filesystem.as_ref();
            vec![
                store.kind.to_owned(),
                if store.problem.is_some() { "?".to_owned() } else { store.models.to_string() },
                store.usage.map(|usage| bytes(usage.allocated_bytes)).unwrap_or_default(),
                filesystem.map(|filesystem| bytes(filesystem.free_bytes)).unwrap_or_default(),
                filesystem.and_then(|filesystem| filesystem.kind.clone()).unwrap_or_default(),
                store.path.display().to_string(),
            ]
        })
        .collect();
    context.printer.data(&render(&context.printer, &columns, &cells))?;
    for problem in stores.iter().filter_map(|store| store.problem.as_ref()) {
        context.printer.warning(&problem.message);
    }
    Ok(Verdict::of_stores(read, problems))
}

fn of(spec: &StoreSpec, scan: Result<Scan, ScanError>) -> Output {
    let (models, usage, filesystem, problem) = match scan {
        Ok(scan) => (scan.models.len(), Some(scan.usage()), scan.filesystem, None),
        Err(error) => (0, None, None, Some(error.problem())),
    };
    Output {
        store: spec.id(),
        kind: spec.kind().word(),
        path: spec.root().to_owned(),
        models,
        usage,
        filesystem,
        problem,
    }
}
