//! One file a command.

mod clean_apply;
mod clean_dedupe;
mod clean_explain;
mod clean_hf;
mod clean_preview;
mod completions;
mod doctor;
mod integrity;
mod list;
mod man;
mod note;
mod path;
mod pin;
mod run;
mod schema;
mod show;
mod stores;
mod sync;
mod tag;
mod trash;
mod undo;
mod verify;

use anyhow::Result;

use crate::args::{Clean, Command, Trash};
use crate::context::Context;
use crate::exit::Verdict;

pub(crate) fn run(command: Command, context: &Context) -> Result<Verdict> {
    match command {
        Command::Sync(args) => sync::run(args, context),
        Command::List(args) => list::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Path(args) => path::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Stores => stores::run(context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Tag(args) => tag::run(&args, context),
        Command::Note(args) => note::run(&args, context),
        Command::Pin(args) => pin::run(&args, context, true),
        Command::Unpin(args) => pin::run(&args, context, false),
        Command::Clean(Clean::Preview(args)) => clean_preview::run(&args, context),
        Command::Clean(Clean::Apply(args)) => clean_apply::run(&args, context),
        Command::Clean(Clean::Hf(args)) => clean_hf::run(&args, context),
        Command::Clean(Clean::Dedupe(args)) => clean_dedupe::run(&args, context),
        Command::Undo(args) => undo::run(&args, context),
        Command::Trash(Trash::List) => trash::list(context),
        Command::Trash(Trash::Empty(args)) => trash::empty(&args, context),
        Command::Schema(args) => schema::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
    }
}
