//! `cargo xtask mlx`: what mlx-rs needs on Linux, made under `.mlx/` without root.
//!
//! The build script of mlx-sys is for macOS. On Linux Cargo is told not to run it (`.mlx/cargo.toml`, which the
//! repository's own configuration takes in when it is there), and this makes what it would have made: MLX itself comes
//! as the wheel that its makers publish, its C interface is compiled from the sources inside mlx-sys, and bindgen
//! writes the bindings.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::step::{cargo, check, read, root, say, step};

/// The wheel that holds libclang, which bindgen reads headers with.
const LIBCLANG: &str = "libclang==18.1.1";

/// What builds everything with MLX.
pub(crate) const FEATURES: [&str; 2] = ["--features", "mlxman-worker/mlx"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Takes MLX for NVIDIA GPUs (CUDA 13), instead of the one for the processor alone
    #[arg(long)]
    cuda: bool,
    /// Makes everything again
    #[arg(long)]
    again: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure(args)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the engine ready, if it is not: the one there is, or the one for the processor.
pub(crate) fn ready() -> Result<()> {
    let cuda = fs_err::read_to_string(stamp()).is_ok_and(|stamp| stamp.contains("mlx-cuda"));
    ensure(&Args { cuda, again: false })
}

fn ensure(args: &Args) -> Result<()> {
    if !cfg!(target_os = "linux") {
        say("MLX is built by its own build script on this system: there is nothing to set up");
        return Ok(());
    }
    let sources = Sources::find()?;
    let wheel = if args.cuda { "mlx-cuda-13" } else { "mlx-cpu" };
    let target = host()?;
    let made_of = format!("{wheel} {}\nmlx-sys {}\n{LIBCLANG}\n{target}\n", sources.mlx, sources.mlx_sys);
    let made_of = made_of + include_str!("../mlx/src/shim.h") + include_str!("../mlx/src/main.rs");
    let dir = root().join(".mlx").join(format!("{wheel}-{}", sources.mlx));
    let is_there = dir.join("lib/libmlxc.a").exists() && root().join(".mlx/cargo.toml").exists();
    if !args.again && is_there && fs_err::read_to_string(stamp()).is_ok_and(|stamp| stamp == made_of) {
        return Ok(());
    }
    step(&format!("MLX {} ({wheel}), once", sources.mlx), || {
        // Whoever is interrupted begins anew.
        remove(&stamp())?;
        let site = dir.join("site");
        let clang = root().join(".mlx/libclang");
        if args.again {
            remove(&dir)?;
            remove(&clang)?;
        }
        pip(&format!("{wheel}=={}", sources.mlx), &site, "mlx/lib/libmlx.so")?;
        pip(LIBCLANG, &clang, "clang/native/libclang.so")?;
        let mut make = cargo();
        make.args(["run", "--quiet", "--package", "xtask-mlx", "--", "--target", &target, "--mlx-c"])
            .arg(&sources.mlx_c)
            .arg("--include")
            .arg(site.join("mlx/include"))
            .arg("--libclang")
            .arg(clang.join("clang/native"))
            .arg("--out")
            .arg(&dir);
        check(&mut make)?;
        fs_err::write(root().join(".mlx/cargo.toml"), configuration(&target, &dir, &site)?)?;
        fs_err::write(stamp(), made_of)?;
        Ok(())
    })
}

/// Where the wheel of MLX lies, on a system that needs one.
pub(crate) fn site() -> Result<Option<PathBuf>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let text = fs_err::read_to_string(root().join(".mlx/cargo.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MLXMAN_MLX_SITE = "));
    let path: String =
        serde_json::from_str(line.context(".mlx/cargo.toml names no place; `cargo xtask mlx --again`")?)?;
    Ok(Some(path.into()))
}

fn stamp() -> PathBuf {
    root().join(".mlx/made-of")
}

/// What Cargo is to know instead of what mlx-sys's build script would tell it.
fn configuration(target: &str, dir: &Path, site: &Path) -> Result<String> {
    let quoted = |path: &Path| -> Result<String> {
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(Value::String(text.to_owned()).to_string())
    };
    let native = format!("native={}", dir.join("lib").display());
    let mlx = format!("native={}", site.join("mlx/lib").display());
    Ok(format!(
        "# Written by `cargo xtask mlx`; .cargo/config.toml takes it in.\n\
         [target.{target}.mlx]\n\
         rustc-link-search = [{}, {}]\n\
         rustc-link-lib = [\"static=mlxc\", \"dylib=mlx\", \"dylib=stdc++\"]\n\
         rustc-env = {{ OUT_DIR = {} }}\n\
         \n\
         [env]\n\
         MLXMAN_MLX_SITE = {}\n",
        Value::String(native),
        Value::String(mlx),
        quoted(&dir.join("bindings"))?,
        quoted(site)?,
    ))
}

/// The sources of mlx-c, and the versions that go with them.
struct Sources {
    mlx_c: PathBuf,
    mlx_sys: String,
    mlx: String,
}

impl Sources {
    fn find() -> Result<Self> {
        let mut metadata = cargo();
        metadata.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
        let metadata: Value = serde_json::from_slice(&read(&mut metadata)?)?;
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let package = packages
            .iter()
            .find(|package| package["name"] == "mlx-sys")
            .context("mlx-sys is not among the dependencies")?;
        let manifest = package["manifest_path"].as_str().context("mlx-sys has no place")?;
        let mlx_c = Path::new(manifest).with_file_name("src").join("mlx-c");
        let lists = fs_err::read_to_string(mlx_c.join("CMakeLists.txt"))?;
        let tag = lists.lines().find_map(|line| line.trim().strip_prefix("GIT_TAG"));
        let mlx = tag.map(|tag| tag.trim().trim_matches(|c| c == 'v' || c == ')').to_owned());
        Ok(Sources {
            mlx_sys: package["version"].as_str().unwrap_or_default().to_owned(),
            mlx: mlx.with_context(|| format!("{} names no version of MLX", mlx_c.display()))?,
            mlx_c,
        })
    }
}

/// Installs one wheel into a directory of its own, unless it is there.
fn pip(package: &str, dir: &Path, file: &str) -> Result<()> {
    if dir.join(file).exists() {
        return Ok(());
    }
    remove(dir)?;
    let mut install = Command::new("python3");
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(dir)
        .arg(package);
    let output = install.stdout(Stdio::null()).stderr(Stdio::piped()).output().context(
        "`python3` can't be run; MLX is fetched with its pip (on Debian and Ubuntu: `python3-pip`)",
    )?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let why = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
        bail!("`python3 -m pip` could not get {package}: {why}");
    }
    if !dir.join(file).exists() {
        bail!("the wheel of {package} holds no {file}: it is of another form than this program knows");
    }
    Ok(())
}

/// This machine, as rustc names it.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = String::from_utf8(read(Command::new(rustc).arg("-vV"))?)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what machine this is")?.to_owned())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs_err::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs_err::remove_dir_all(path),
        Ok(_) => fs_err::remove_file(path),
        Err(_) => Ok(()),
    };
    Ok(removed?)
}
