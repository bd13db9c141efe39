//! Makes stores to try things on.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Parser;
use mlxman_testkit::{big_tree, demo_store};

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
}

fn main() {
    match Args::parse() {
        Args::Tree { dir, repos, links } => {
            let made = big_tree(&dir, repos, links);
            println!("{}: {} repos, {} links, {} bytes", dir.display(), made.repos, made.links, made.bytes);
        }
        Args::DemoStore { dir } => {
            let demo = demo_store(&dir, SystemTime::now());
            println!("{}\n{}", demo.hub.display(), demo.models.display());
        }
    }
}
