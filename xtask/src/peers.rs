//! The Python libraries that the tests compare with, in a directory of their own under `.tools/`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::step::root;

/// What is installed, each with its version.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// Installs the libraries, unless that was done before, and returns a Python that has them.
///
/// `pip install --target` needs neither root nor the module `venv`, which some systems keep in a package of its own.
pub(crate) fn python() -> Result<PathBuf> {
    let dir = root().join(".tools/peers");
    let python = dir.join("python");
    let site = dir.join("site");
    let stamp = dir.join("requirements.txt");
    if python.exists() && fs_err::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    if dir.exists() {
        fs_err::remove_dir_all(&dir)?;
    }
    fs_err::create_dir_all(&dir)?;
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&site);
    run(install.arg("--requirement").arg(root().join("xtask/requirements.txt"))).context(
        "the comparison with huggingface_hub needs `python3` with pip, and the packages of `xtask/requirements.txt`; \
         `cargo xtask test --no-peers` goes without",
    )?;
    let script = "#!/bin/sh\nhere=$(dirname \"$0\")\nPYTHONPATH=$here/site exec python3 \"$@\"\n";
    fs_err::write(&python, script)?;
    fs_err::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
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
