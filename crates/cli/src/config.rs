//! The configuration: `$XDG_CONFIG_HOME/mlxman/config.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mlxman_store::StoreKind;
use serde::Deserialize;

/// The configuration's form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Stores, beside those that the environment names.
    #[serde(default, rename = "store")]
    pub(crate) stores: Vec<ConfigStore>,
    /// Directories with further catalog entries.
    #[serde(default)]
    pub(crate) catalogs: Vec<PathBuf>,
    /// Policies of `mlxman clean`.
    #[serde(default)]
    pub(crate) clean: ConfigClean,
}

/// `[clean]`: policies under the names of their options. What cannot be had again is asked for each time, never here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct ConfigClean {
    pub(crate) keep_last: Option<u32>,
    pub(crate) older_than: Option<String>,
    pub(crate) max_size: Option<String>,
    pub(crate) free: Option<String>,
    pub(crate) detached: bool,
    pub(crate) partials: bool,
    pub(crate) orphans: bool,
    pub(crate) broken: bool,
    pub(crate) duplicates: bool,
    pub(crate) superseded: bool,
    pub(crate) grace: Option<String>,
}

/// One store: `[[store]]` with `kind` and `path`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigStore {
    pub(crate) kind: StoreKind,
    pub(crate) path: PathBuf,
}

impl Config {
    /// Reads it; where nobody named the file, it need not be there.
    pub(crate) fn read(path: &Path, named: bool) -> Result<Self> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                return Ok(Config::default());
            }
            Err(error) => return Err(error).context("the configuration cannot be read"),
        };
        toml::from_str(&text).map_err(|error| {
            crate::exit::wrong(format!(
                "the configuration {} cannot be used: {}",
                path.display(),
                error.to_string().trim_end()
            ))
        })
    }
}
