//! A place to run mlxman in that nothing of the user's environment reaches.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::folder::FolderStore;
use crate::hub::HubStore;

/// Variables that change where models are looked for or how things are printed, and that a test must not inherit.
const REMOVED: [&str; 27] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "FORCE_COLOR",
    "HF_ASSETS_CACHE",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_XET_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HUGGING_FACE_HUB_TOKEN",
    "LMSTUDIO_HOME",
    "MLXMAN_CONFIG",
    "MLXMAN_FORMAT",
    "MLXMAN_LOG",
    "MLXMAN_STORES",
    "MLX_MODELS_DIR",
    "OLLAMA_HOST",
    "OLLAMA_MODELS",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TRANSFORMERS_CACHE",
    "XDG_RUNTIME_DIR",
    "PAGER",
];

/// A temporary home directory with an environment of its own. It is removed when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    dir: tempfile::TempDir,
    root: PathBuf,
    bin: PathBuf,
    env: Vec<(String, PathBuf)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Panics with both outputs unless the exit code is this one.
    #[track_caller]
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code() == code, "expected exit code {code}, but\n{self}");
        self
    }

    /// Panics with both outputs unless it succeeded.
    #[track_caller]
    #[must_use]
    pub fn success(self) -> Self {
        self.expect_code(0)
    }

    /// The standard output as JSON; panics with both outputs if it isn't JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("expected JSON ({error}), but\n{self}"),
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "$ {command}\n{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

impl Sandbox {
    /// Makes one for the program `bin`; in a test that is `env!("CARGO_BIN_EXE_mlxman")`.
    pub fn new(bin: impl Into<PathBuf>) -> Self {
        let dir =
            tempfile::Builder::new().prefix("mlxman-").tempdir().expect("a temporary directory can be made");
        // So that paths that mlxman resolves compare equal (on macOS the temporary directory is behind a link).
        let root = fs_err::canonicalize(dir.path()).expect("the temporary directory can be resolved");
        let sandbox = Self { dir, root, bin: bin.into(), env: Vec::new() };
        for path in [sandbox.home(), sandbox.mlxman_home(), sandbox.root.join("tmp"), sandbox.work()] {
            fs_err::create_dir_all(path).expect("the sandbox's directories can be made");
        }
        sandbox
    }

    /// The directory that everything is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `$HOME`.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// `$MLXMAN_HOME`.
    pub fn mlxman_home(&self) -> PathBuf {
        self.root.join("mlxman")
    }

    /// The working directory of commands.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The hub cache that the environment leads to, `$HF_HOME/hub`.
    pub fn hub(&self) -> HubStore {
        HubStore::create(self.hf_home().join("hub"))
    }

    /// `$HF_HOME`.
    pub fn hf_home(&self) -> PathBuf {
        self.home().join(".cache/huggingface")
    }

    /// The folder of models that `$MLX_MODELS_DIR` names from this call on.
    pub fn models(&mut self) -> FolderStore {
        let root = self.root.join("models");
        self.set("MLX_MODELS_DIR", &root);
        FolderStore::create(root)
    }

    /// Sets a variable for the commands after this.
    pub fn set(&mut self, name: &str, value: impl Into<PathBuf>) {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.into()));
    }

    /// A command that runs `bin` in this environment.
    pub fn command(&self, bin: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(bin);
        command.current_dir(self.work());
        for name in REMOVED {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MLXMAN_") {
                command.env_remove(name);
            }
        }
        let home = self.home();
        command
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_DATA_HOME", home.join(".local/share"))
            .env("XDG_STATE_HOME", home.join(".local/state"))
            .env("TMPDIR", self.root.join("tmp"))
            .env("MLXMAN_HOME", self.mlxman_home())
            .env("HF_HOME", self.hf_home())
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program with these arguments and waits for it.
    #[track_caller]
    pub fn run<I, S>(&self, args: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(&self.bin);
        command.args(args);
        output(&mut command)
    }

    /// Runs the program with these arguments and `--json`, and returns what it printed. An exit code other than 0 or 1
    /// is a panic.
    #[track_caller]
    pub fn json<I, S>(&self, args: I) -> Value
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(&self.bin);
        command.args(args).arg("--json");
        let output = output(&mut command);
        assert!(matches!(output.code(), 0 | 1), "expected exit code 0 or 1, but\n{output}");
        output.json()
    }

    /// Keeps the directory after this is dropped, and returns it.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    match command.output() {
        Ok(output) => Output {
            command: line,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => panic!("`{line}` can't be run: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_see_the_sandbox_alone() {
        let mut sandbox = Sandbox::new("/bin/sh");
        sandbox.models();
        let output = sandbox
            .run(["-c", "echo $HOME $MLXMAN_HOME $MLX_MODELS_DIR ${HF_HUB_CACHE-unset}; pwd"])
            .success();
        let root = sandbox.root().display().to_string();
        assert_eq!(output.stdout, format!("{root}/home {root}/mlxman {root}/models unset\n{root}/work\n"));
        let value = sandbox.json(["-c", "echo '{\"a\": 1}'; exit 1"]);
        assert_eq!(value["a"], 1);
    }

    #[test]
    #[should_panic(expected = "expected JSON")]
    fn text_is_not_json() {
        let _ = Sandbox::new("/bin/sh").json(["-c", "echo hello"]);
    }
}
