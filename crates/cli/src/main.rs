//! mlxman: a manifest-driven model registry and cleanup toolkit for MLX and Hugging Face model stores.
//!
//! This crate is the edge: it reads the environment, the configuration and the clock, calls the libraries, and does
//! all the printing. What it computes itself is how things look.

mod args;
mod commands;
mod config;
mod context;
mod exit;
mod mending;
mod places;
mod planning;
mod printer;
mod progress;
mod select;
mod table;
mod trash;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    let printer = printer::Printer::new(&args.global);
    let result = context::Context::resolve(&args.global, printer)
        .and_then(|context| commands::run(args.command, &context));
    exit::report(result, &printer)
}
