//! The project's chores: `cargo xtask --help` lists them.
//!
//! One file a chore; [`step`] runs programs and says what is happening and how long it took.

mod bench;
mod demo;
mod generate;
mod install;
mod mlx;
mod peers;
mod step;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs the benchmarks
    Bench(bench::Args),
    /// Shows mlxman at work on stores made for it
    Demo(demo::Args),
    /// Writes the schemas, the command reference, the man pages and the completions
    Generate(generate::Args),
    /// Installs mlxman for this user
    Install(install::Args),
    /// Makes MLX ready on Linux, once; nothing is needed on macOS
    Mlx(mlx::Args),
    /// Runs every check that a change has to pass
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::Bench(args) => bench::run(&args),
        Chore::Demo(args) => demo::run(&args),
        Chore::Generate(args) => generate::run(&args),
        Chore::Install(args) => install::run(&args),
        Chore::Mlx(args) => mlx::run(&args),
        Chore::Test(args) => test::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            step::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
