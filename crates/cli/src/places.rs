//! Where things are, by the environment: read once, here.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the environment says of places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    home: Option<PathBuf>,
    config_home: PathBuf,
    data_home: PathBuf,
    cache_home: PathBuf,
}

fn var(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

impl Places {
    pub(crate) fn from_env() -> Self {
        let home = etcetera::home_dir().ok();
        let below = |name: &str, parts: &str| {
            // The base directories' specification: a relative path there counts for nothing.
            let given = var(name).map(PathBuf::from).filter(|path| path.is_absolute());
            given.unwrap_or_else(|| home.clone().unwrap_or_default().join(parts))
        };
        Places {
            config_home: below("XDG_CONFIG_HOME", ".config"),
            data_home: below("XDG_DATA_HOME", ".local/share"),
            cache_home: below("XDG_CACHE_HOME", ".cache"),
            home,
        }
    }

    /// The registry's directory.
    pub(crate) fn registry(&self) -> PathBuf {
        match var("MLXMAN_HOME") {
            Some(path) => self.expand(Path::new(&path)),
            None => self.data_home.join("mlxman"),
        }
    }

    /// The configuration's file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.config_home.join("mlxman/config.toml")
    }

    /// The hub cache, as huggingface_hub finds it, and which variable names it.
    pub(crate) fn hub_cache(&self) -> (PathBuf, Option<&'static str>) {
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            if let Some(path) = var(name) {
                return (self.expand(Path::new(&path)), Some(name));
            }
        }
        if let Some(path) = var("HF_HOME") {
            return (self.expand(Path::new(&path)).join("hub"), Some("HF_HOME"));
        }
        (self.cache_home.join("huggingface/hub"), None)
    }

    /// Where Xet keeps chunks: beside the hub cache in `home`, where one is given, else as huggingface_hub finds it.
    pub(crate) fn xet_cache(&self, home: Option<&Path>) -> PathBuf {
        match (home, var("HF_XET_CACHE"), var("HF_HOME")) {
            (Some(home), ..) => self.expand(home).join("xet"),
            (None, Some(path), _) => self.expand(Path::new(&path)),
            (None, None, Some(path)) => self.expand(Path::new(&path)).join("xet"),
            (None, None, None) => self.cache_home.join("huggingface/xet"),
        }
    }

    /// The folder of models that `MLX_MODELS_DIR` names.
    pub(crate) fn models_dir(&self) -> Option<PathBuf> {
        var("MLX_MODELS_DIR").map(|path| self.expand(Path::new(&path)))
    }

    /// The program that models are loaded in: `$MLXMAN_WORKER`, else beside this program.
    pub(crate) fn worker(&self) -> PathBuf {
        match var("MLXMAN_WORKER") {
            Some(path) => self.expand(Path::new(&path)),
            None => env::current_exe().unwrap_or_default().with_file_name("mlxman-worker"),
        }
    }

    /// What the worker's `LD_PRELOAD` is to be, so that a quick BLAS takes the place of the slow one that MLX's wheel for
    /// Linux brings: `$MLXMAN_BLAS`, else OpenBLAS where it is installed.
    pub(crate) fn preload(&self) -> Option<OsString> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let blas = match var("MLXMAN_BLAS") {
            Some(none) if none == "none" => return None,
            Some(path) => self.expand(Path::new(&path)),
            None => mlxman_verify::machine::find_openblas(Path::new("/"))?,
        };
        let mut preload = blas.into_os_string();
        if let Some(others) = var("LD_PRELOAD") {
            preload.push(":");
            preload.push(others);
        }
        Some(preload)
    }

    /// Expands `~` and `$NAME` or `${NAME}`, as huggingface_hub does.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        let Some(text) = path.to_str() else { return path.to_owned() };
        PathBuf::from(expand(text, self.home.as_deref(), |name| env::var(name).ok()))
    }
}

fn expand(text: &str, home: Option<&Path>, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if let Some(home) = home.filter(|_| text == "~" || text.starts_with("~/")) {
        out.push_str(&home.to_string_lossy());
        rest = &text[1..];
    }
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match value_of(name).filter(|_| plain) {
            Some(value) => {
                out.push_str(&value);
                rest = after;
            }
            // As Python does: what is not set stays as it stands.
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_and_variables_are_expanded_as_python_does() {
        let of = |text| expand(text, Some(Path::new("/h")), |name| (name == "A").then(|| "x".to_owned()));
        assert_eq!(of("~"), "/h");
        assert_eq!(of("~/hub"), "/h/hub");
        assert_eq!(of("~other/hub"), "~other/hub");
        assert_eq!(of("/a/$A/b"), "/a/x/b");
        assert_eq!(of("/a/${A}b"), "/a/xb");
        assert_eq!(of("$NOPE/$A"), "$NOPE/x");
        assert_eq!(of("${NOPE}/b"), "${NOPE}/b");
        assert_eq!(of("a$"), "a$");
        assert_eq!(of("${A"), "${A");
    }
}
