//! The stores' trashes, as commands use them.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;
use mlxman_clean::{OpenError, Trash};
use mlxman_store::{DirHandle, StoreSpec};

use crate::context::Context;
use crate::exit::wrong;

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
