//! The stores' trashes, as commands use them.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;
use mlxman_clean::{OpenError, Trash};
use mlxman_store::{DirHandle, StoreSpec};

use crate::context::Context;
use crate::exit::wrong;
use crate::progress::Watcher;

/// No change is kept from being made.
pub(crate) fn freely(_: mlxman_store::Change) -> std::io::Result<()> {
    Ok(())
}

/// Ends what another run began in these stores and could not end, and says so. Where the trash cannot be opened, whoever
/// needs it will say why.
pub(crate) fn recover(context: &Context, stores: &[StoreSpec]) {
    for spec in stores.iter().filter(|spec| !context.silent_stores().contains(spec)) {
        let Ok(root) = DirHandle::open_root(spec.root()) else { continue };
        match Trash::open_existing(spec, &root, &freely) {
            Ok(None) => {}
            Ok(Some(trash)) => recover_in(context, &trash),
            Err(error @ OpenError::Busy { .. }) => context.printer.status(&error.to_string()),
            Err(_) => {}
        }
    }
    let behind = context.registry.behind();
    let behind: Vec<StoreSpec> = stores.iter().filter(|spec| behind.contains(spec)).cloned().collect();
    if !behind.is_empty() {
        let names: Vec<String> = behind.iter().map(ToString::to_string).collect();
        context.printer.status(&format!(
            "an earlier run did not come to the manifests of {}: they are brought up to date",
            names.join(", ")
        ));
        renew(context, &behind);
    }
}

/// Notes that stores are going to be changed, so that the manifests follow even if this run does not come to its end.
pub(crate) fn will_change(context: &Context, specs: &[StoreSpec]) {
    // A registry that cannot be written keeps nothing from being done, and `renew` says so afterwards.
    let _ = context.registry.will_change(specs);
}

/// Brings the manifests up to date: what is gone is told to be, and what the user said of it stays.
pub(crate) fn renew(context: &Context, specs: &[StoreSpec]) -> bool {
    let watcher = Watcher::new(&context.printer);
    let catalog = match context.catalog() {
        Ok(catalog) => catalog,
        Err(error) => {
            context.printer.warning(&error.to_string());
            return false;
        }
    };
    let done = context.registry.sync(specs, &catalog, &context.looking(), &watcher);
    watcher.finish();
    match done {
        Ok(_) => true,
        Err(error) => {
            context.printer.warning(&format!(
                "the manifests could not be brought up to date ({error}); `mlxman sync --fast` does it"
            ));
            false
        }
    }
}

/// The same in a trash that is open.
pub(crate) fn recover_in(context: &Context, trash: &Trash<'_>) {
    match trash.recover() {
        Ok(recovered) => {
            for one in recovered {
                let store = &one.store;
                context
                    .printer
                    .status(&format!("an earlier run did not end in {store} ({}): {}", one.id, one.done));
                for stuck in &one.stuck {
                    context.printer.warning(&format!("{stuck}; it is in the trash as {}", one.id));
                }
            }
        }
        Err(error) => context.printer.warning(&error.to_string()),
    }
}

/// Asks on the terminal; without one nobody can answer, and the call has to say `--yes`.
pub(crate) fn confirmed(context: &Context, question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() || context.printer.json {
        return Err(wrong("there is no terminal to ask on: look at it with a preview, then say --yes"));
    }
    let mut err = anstream::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
