//! `cargo xtask demo`: mlxman at work on stores made for it, in a temporary directory.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use mlxman_testkit::{Sandbox, demo_store};

use crate::step::{build_mlxman, say, status, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Builds with optimisations; without them the first build is quicker
    #[arg(long)]
    release: bool,
    /// Keeps the directory and prints its path
    #[arg(long)]
    keep: bool,
}

/// The commands, and the exit codes that are right. The stores have problems, and `sync` and `list` say so with a 1.
const COMMANDS: [(&[&str], &[i32]); 6] = [
    (&["sync", "--fast"], &[0, 1]),
    (&["list"], &[0, 1]),
    (&["show", "mzbac/flux1.schnell.4bit.mlx"], &[0]),
    (&["clean", "preview", "--tags", "flux", "--quantization", "4bit"], &[0]),
    (&["clean", "preview"], &[0]),
    (&["verify"], &[0, 1]),
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bin = build_mlxman(args.release)?;
    let mut sandbox = Sandbox::new(&bin);
    let demo = step("make the stores", || Ok(demo_store(sandbox.root(), SystemTime::now())))?;
    sandbox.set("HF_HUB_CACHE", demo.hub);
    sandbox.set("MLX_MODELS_DIR", demo.models);
    let done =
        step("demo", || COMMANDS.iter().try_for_each(|(words, codes)| show(&sandbox, &bin, words, codes)));
    if args.keep {
        say(&format!("kept: {}", sandbox.keep().display()));
    }
    done.map(|()| ExitCode::SUCCESS)
}

fn show(sandbox: &Sandbox, bin: &Path, words: &[&str], codes: &[i32]) -> Result<()> {
    let line = format!("mlxman {}", words.join(" "));
    let mut out = std::io::stdout();
    writeln!(out, "$ {line}")?;
    let mut command = sandbox.command(bin);
    command.args(words);
    if out.is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        command.env_remove("NO_COLOR");
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
    }
    let code = status(&mut command)?.code().with_context(|| format!("`{line}` was ended by a signal"))?;
    writeln!(out)?;
    if !codes.contains(&code) {
        bail!("`{line}` ended with exit code {code}, and {codes:?} was expected");
    }
    Ok(())
}
