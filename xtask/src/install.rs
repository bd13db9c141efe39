//! `cargo xtask install`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::mlx;
use crate::step::{cargo, check, root, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory whose `bin` gets the programs, instead of cargo's own
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Leaves out MLX: `mlxman verify` then checks structure alone
    #[arg(long)]
    no_engine: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let place = match &args.root {
        Some(dir) => std::path::absolute(dir)?,
        None => cargo_root()?,
    };
    if !args.no_engine {
        mlx::ready()?;
    }
    step("install mlxman", || {
        let install = |package: &str, features: &[&str]| {
            let mut command = cargo();
            command
                .args(["install", "--locked", "--force", "--path"])
                .arg(root().join("crates").join(package));
            check(command.arg("--root").arg(&place).args(features))
        };
        install("cli", &[])?;
        if args.no_engine {
            return Ok(());
        }
        install("worker", &["--features", "mlx"])?;
        copy_libraries(&place)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Puts MLX's libraries where the installed worker looks for them first: it does not need this clone any more.
fn copy_libraries(place: &Path) -> Result<()> {
    let Some(site) = mlx::site()? else { return Ok(()) };
    let to = place.join("lib/mlxman");
    if to.exists() {
        fs_err::remove_dir_all(&to)?;
    }
    for entry in fs_err::read_dir(&site)? {
        let dir = entry?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".libs") {
            copy_files(&dir, &to.join(name))?;
        }
    }
    copy_files(&site.join("mlx/lib"), &to.join("mlx/lib"))
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            fs_err::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Where `cargo install` puts things.
fn cargo_root() -> Result<PathBuf> {
    let set = ["CARGO_INSTALL_ROOT", "CARGO_HOME"].iter().find_map(std::env::var_os).map(PathBuf::from);
    match set {
        Some(root) => Ok(root),
        None => {
            Ok(PathBuf::from(std::env::var_os("HOME").context("HOME is not set; use --root")?).join(".cargo"))
        }
    }
}
