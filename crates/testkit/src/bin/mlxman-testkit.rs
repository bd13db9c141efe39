//! Makes stores to try things on.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use mlxman_testkit::{Golden, big_tree, demo_store};

/// Makes stores to try mlxman on.
#[derive(Parser)]
#[command(name = "mlxman-testkit", version)]
enum Args {
    /// Makes a hub cache of many repos whose weights are holes
    Tree {
        /// Where it goes; the directory is made
        dir: PathBuf,
        /// Number of repos
        #[arg(long, default_value_t = 1000)]
        repos: usize,
        /// Files of each repo, 9 to 14
        #[arg(long, default_value_t = 13)]
        links: usize,
    },
    /// Makes the stores of the demo
    DemoStore {
        /// Where they go; the directory is made
        dir: PathBuf,
    },
    /// Makes tiny decoders of which mlx_lm's answers are known: `lm CASE DIR`, or `lm --all DIR`
    Lm {
        /// A case of tests/goldens/lm, unless --all, and where it goes; the directory is made
        #[arg(required = true, num_args = 1..=2, value_names = ["CASE", "DIR"])]
        what: Vec<String>,
        /// Makes every case, each in a directory of its name
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    match Args::parse() {
        Args::Tree { dir, repos, links } => {
            let made = big_tree(&dir, repos, links);
            println!("{}: {} repos, {} links, {} bytes", dir.display(), made.repos, made.links, made.bytes);
        }
        Args::DemoStore { dir } => {
            let demo = demo_store(&dir, SystemTime::now());
            println!("{}\n{}", demo.hub.display(), demo.models.display());
        }
        Args::Lm { what, all } => return lm(&what, all),
    }
    ExitCode::SUCCESS
}

fn lm(what: &[String], all: bool) -> ExitCode {
    let (names, dir) = match what {
        [dir] if all => (Golden::names(), dir),
        [case, dir] if !all => (vec![case.clone()], dir),
        _ => {
            eprintln!("`lm` takes a case and a directory, or --all and a directory");
            return ExitCode::from(2);
        }
    };
    for name in names {
        let dir = if all { Path::new(dir).join(&name) } else { PathBuf::from(dir) };
        match Golden::named(&name) {
            Ok(golden) => golden.write_checkpoint(&dir),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        println!("{}", dir.display());
    }
    ExitCode::SUCCESS
}
