//! What every command needs, resolved once: stores, registry, catalog, clock, printer.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::registry::{Registry, SyncOptions};
use mlxman_store::StoreSpec;

use crate::args::Global;
use crate::config::Config;
use crate::exit::wrong;
use crate::places::Places;
use crate::printer::Printer;

/// Who named a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// `--store` or the configuration: it has to be there.
    User,
    /// A variable or a default: a store that was never used may not be there yet.
    Default,
}

/// What every command needs.
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) registry: Registry,
    pub(crate) now: DateTime<Utc>,
    pub(crate) store_limit: Duration,
    /// What `--store` said, for filters: specs in their canonical form, other words as they are.
    pub(crate) store_words: Vec<String>,
    stores: Vec<(StoreSpec, NamedBy)>,
    catalogs: Vec<std::path::PathBuf>,
}

impl Context {
    pub(crate) fn resolve(global: &Global, printer: Printer) -> Result<Self> {
        let places = Places::from_env();
        let config = match &global.config {
            Some(path) => Config::read(path, true)?,
            None => Config::read(&places.config_file(), false)?,
        };
        let mut named: Vec<StoreSpec> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for text in &global.store {
            if text.contains('=') {
                let (kind, path) = text.split_once('=').unwrap_or((text, ""));
                if path.is_empty() {
                    return Err(wrong(format!("--store {text}: there is no path behind `=`")));
                }
                let kind = kind.parse().map_err(|error| wrong(format!("--store {text}: {error}")))?;
                let path = std::path::absolute(places.expand(std::path::Path::new(path)))?;
                named.push(StoreSpec::new(kind, path));
            } else {
                words.push(text.clone());
            }
        }
        let mut stores: Vec<(StoreSpec, NamedBy)> = Vec::new();
        let mut add = |spec: StoreSpec, by: NamedBy| {
            if !stores.iter().any(|(known, _)| *known == spec) {
                stores.push((spec, by));
            }
        };
        if named.is_empty() {
            let known = |spec: &StoreSpec| {
                words.is_empty()
                    || words.iter().any(|word| {
                        *word == spec.kind().word() || spec.root().to_string_lossy().contains(word.as_str())
                    })
            };
            let of_config =
                config.stores.iter().map(|store| StoreSpec::new(store.kind, places.expand(&store.path)));
            for spec in of_config.filter(known) {
                add(spec, NamedBy::User);
            }
            let (hub, _) = places.hub_cache();
            let models = places.models_dir();
            let defaults =
                std::iter::once(StoreSpec::new(mlxman_store::StoreKind::Hub, std::path::absolute(hub)?))
                    .chain(models.map(|path| StoreSpec::new(mlxman_store::StoreKind::Folder, path)));
            for spec in defaults.filter(known) {
                add(spec, NamedBy::Default);
            }
        } else {
            words.extend(named.iter().map(StoreSpec::id));
            named.into_iter().for_each(|spec| add(spec, NamedBy::User));
        }
        Ok(Context {
            printer,
            registry: Registry::at(places.registry()),
            now: Utc::now(),
            store_limit: Duration::from_secs(global.store_timeout),
            store_words: words,
            stores,
            catalogs: config.catalogs.iter().map(|path| places.expand(path)).collect(),
        })
    }

    /// The stores to read: those that nobody named and that are not there are left out.
    pub(crate) fn stores(&self) -> Vec<StoreSpec> {
        self.stores
            .iter()
            .filter(|(spec, by)| *by == NamedBy::User || spec.root().symlink_metadata().is_ok())
            .map(|(spec, _)| spec.clone())
            .collect()
    }

    /// The stores to read, of which there must be one.
    pub(crate) fn some_stores(&self) -> Result<Vec<StoreSpec>> {
        let stores = self.stores();
        if stores.is_empty() {
            let looked: Vec<String> =
                self.stores.iter().map(|(spec, _)| spec.root().display().to_string()).collect();
            anyhow::bail!(
                "there is no store: looked at {}; name yours with --store hub=PATH or --store folder=PATH",
                if looked.is_empty() { "nothing".to_owned() } else { looked.join(", ") }
            );
        }
        Ok(stores)
    }

    /// The catalog, with the user's own entries.
    pub(crate) fn catalog(&self) -> Result<Catalog> {
        let mut catalog = Catalog::built_in();
        let own = self.registry.catalog_dir();
        for dir in std::iter::once(&own).chain(&self.catalogs) {
            let (with, problems) = catalog.with_user_entries(dir)?;
            catalog = with;
            for problem in problems {
                self.printer.warning(&problem.to_string());
            }
        }
        Ok(catalog)
    }

    /// A fast look that writes nothing, at this run's time and limits.
    pub(crate) fn looking(&self) -> SyncOptions {
        let mut options = SyncOptions::fast(self.now);
        options.store_limit = self.store_limit;
        options
    }
}
