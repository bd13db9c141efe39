//! The Python libraries that the tests compare with, in an environment of their own under `.tools/`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::step::root;

/// What is installed, each with its version.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// Installs the libraries, unless that was done before, and returns the Python that has them.
pub(crate) fn python() -> Result<PathBuf> {
    let dir = root().join(".tools/peers");
    let python = dir.join("bin/python");
    let stamp = dir.join("requirements.txt");
    if python.exists() && fs_err::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    if dir.exists() {
        fs_err::remove_dir_all(&dir)?;
    }
    fs_err::create_dir_all(root().join(".tools"))?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir))
        .context("the peer check needs `python3` with the modules `venv` and `pip`")?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    run(install.arg(root().join("xtask/requirements.txt"))).context(
        "the peer check needs the packages of `xtask/requirements.txt`, and pip could not install them",
    )?;
    fs_err::write(&stamp, REQUIREMENTS)?;
    Ok(python)
}

/// Runs a command; the error is the last line that it wrote to stderr.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}", stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason was given"));
    }
    Ok(())
}
