//! What every command needs, resolved once: stores, registry, catalog, clock, printer.

use std::cell::OnceCell;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use mlxman_clean::{Run, quoted};
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::registry::{Contents, Registry, RegistryError, SyncOptions, scan_all};
use mlxman_store::{FileId, Resolved, Scan, ScanError, StoreKind, StoreSpec, Use, resolve};

use crate::args::Global;
use crate::config::{Config, ConfigClean};
use crate::exit::wrong;
use crate::places::Places;
use crate::printer::Printer;

/// Who named a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// `--store` or the configuration: it has to be there.
    User,
    /// A variable: it has to be there once models were found in it.
    Variable(&'static str),
    /// A default: a store that was never used may not be there yet.
    Default,
}

/// The stores to read.
#[derive(Debug, Default)]
struct Stores {
    specs: Vec<StoreSpec>,
    /// Those of them that did not answer.
    silent: Vec<StoreSpec>,
    /// Device and inode of their roots, where they are there.
    ids: Vec<(StoreKind, FileId)>,
    /// Further names of one of them: its volume is mounted at two places.
    twice: Vec<StoreSpec>,
}

/// What every command needs.
pub(crate) struct Context {
    pub(crate) printer: Printer,
    pub(crate) registry: Registry,
    pub(crate) now: DateTime<Utc>,
    /// This run's name for whatever it changes.
    pub(crate) run: Run,
    pub(crate) store_limit: Duration,
    /// What `--store` said, for filters: specs in their canonical form, other words as they are.
    pub(crate) store_words: Vec<String>,
    /// Whether `--store` said anything.
    pub(crate) store_given: bool,
    /// As they were named: where their volumes are, and whether those answer, is asked when it is needed.
    named: Vec<(StoreSpec, NamedBy)>,
    /// Those that the configuration and the environment name, where `--store` names others.
    left_out: Vec<(StoreSpec, NamedBy)>,
    stores: OnceCell<Stores>,
    /// Where things are.
    pub(crate) places: Places,
    catalogs: Vec<std::path::PathBuf>,
    /// The configuration's policies, and where they stand.
    pub(crate) clean: ConfigClean,
    pub(crate) config_file: std::path::PathBuf,
}

impl Context {
    pub(crate) fn resolve(global: &Global, printer: Printer) -> Result<Self> {
        let places = Places::from_env();
        let config = match &global.config {
            Some(path) => Config::read(path, true)?,
            None => Config::read(&places.config_file(), false)?,
        };
        let store_limit = Duration::from_secs(global.store_timeout);
        let mut given: Vec<StoreSpec> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for text in &global.store {
            if text.contains('=') {
                let (kind, path) = text.split_once('=').unwrap_or((text, ""));
                if path.is_empty() {
                    return Err(wrong(format!("--store {text}: there is no path behind `=`")));
                }
                let kind = kind.parse().map_err(|error| wrong(format!("--store {text}: {error}")))?;
                let path = std::path::absolute(places.expand(std::path::Path::new(path)))?;
                given.push(StoreSpec::verbatim(kind, path));
            } else {
                words.push(text.clone());
            }
        }
        let mut named: Vec<(StoreSpec, NamedBy)> = Vec::new();
        let mut left_out = Vec::new();
        let stores = OnceCell::new();
        for store in &config.stores {
            let path = std::path::absolute(places.expand(&store.path))?;
            named.push((StoreSpec::verbatim(store.kind, path), NamedBy::User));
        }
        let (hub, variable) = places.hub_cache();
        let by = variable.map_or(NamedBy::Default, NamedBy::Variable);
        named.push((StoreSpec::verbatim(StoreKind::Hub, std::path::absolute(hub)?), by));
        if let Some(models) = places.models_dir() {
            let spec = StoreSpec::verbatim(StoreKind::Folder, std::path::absolute(models)?);
            named.push((spec, NamedBy::Variable("MLX_MODELS_DIR")));
        }
        if !given.is_empty() {
            left_out = std::mem::take(&mut named);
            // The registry knows them by their canonical names.
            let found = resolve(given, store_limit);
            words.extend(found.iter().map(|store| store.spec.id()));
            let mut only = Stores::default();
            found.into_iter().for_each(|store| only.add(store));
            named.extend(only.specs.iter().map(|spec| (spec.clone(), NamedBy::User)));
            let _ = stores.set(only);
        }
        let now = Utc::now();
        // Randomly keyed, as the standard library's tables are.
        let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Ok(Context {
            printer,
            registry: Registry::at(places.registry()),
            now,
            run: Run::new(now, chance),
            store_limit,
            store_given: !global.store.is_empty(),
            store_words: words,
            named,
            left_out,
            stores,
            catalogs: config.catalogs.iter().map(|path| places.expand(path)).collect(),
            clean: config.clean,
            config_file: global.config.clone().unwrap_or_else(|| places.config_file()),
            places,
        })
    }

    /// The registry's content, with the manifests that models' folders keep themselves.
    pub(crate) fn contents(&self) -> Result<Contents, RegistryError> {
        let specs: Vec<StoreSpec> = self.named.iter().map(|(spec, _)| spec.clone()).collect();
        self.registry.contents(&specs)
    }

    /// The stores to read: those that nobody named and that are not there are left out.
    fn stores(&self) -> &Stores {
        self.stores.get_or_init(|| {
            let specs: Vec<StoreSpec> = self.named.iter().map(|(spec, _)| spec.clone()).collect();
            let mut stores = Stores::default();
            let mut known = None;
            for (found, (_, by)) in resolve(specs, self.store_limit).into_iter().zip(&self.named) {
                let spec = &found.spec;
                let chosen = self.store_words.is_empty()
                    || self.store_words.iter().any(|word| {
                        *word == spec.kind().word() || spec.root().to_string_lossy().contains(word.as_str())
                    });
                if !chosen {
                    continue;
                }
                if found.there == Ok(false) && *by != NamedBy::User {
                    let contents =
                        known.get_or_insert_with(|| self.registry.contents(&[]).unwrap_or_default());
                    let id = spec.id();
                    if !contents.rows.iter().any(|row| row.summary.store == id && row.summary.present) {
                        if let NamedBy::Variable(name) = by {
                            let root = spec.root().display();
                            self.printer
                                .status(&format!("{root}, which {name} names, is not there; it is left out"));
                        }
                        continue;
                    }
                }
                stores.add(found);
            }
            stores
        })
    }

    /// The stores to read, of which there must be one.
    pub(crate) fn some_stores(&self) -> Result<Vec<StoreSpec>> {
        let stores = self.stores();
        if stores.specs.is_empty() {
            let looked: Vec<String> =
                self.named.iter().map(|(spec, _)| spec.root().display().to_string()).collect();
            anyhow::bail!(
                "there is no store: looked at {}; name yours with --store hub=PATH or --store folder=PATH",
                if looked.is_empty() { "nothing".to_owned() } else { looked.join(", ") }
            );
        }
        // A folder inside a folder is found with it: read twice, its models would count twice. (A hub cache inside a
        // folder is not: a folder leaves repos of a hub cache alone.)
        let within = |inner: &StoreSpec| {
            stores.specs.iter().find(|outer| {
                *outer != inner
                    && outer.kind() == StoreKind::Folder
                    && inner.kind() == StoreKind::Folder
                    && inner.root().starts_with(outer.root())
            })
        };
        for spec in &stores.twice {
            self.printer
                .status(&format!("{spec} is another name of a store that is read already; it is read once"));
        }
        let mut specs = Vec::new();
        for spec in &stores.specs {
            match within(spec) {
                Some(outer) => {
                    self.printer.status(&format!("{spec} lies inside {outer}, and is read as part of it"));
                }
                None => specs.push(spec.clone()),
            }
        }
        Ok(specs)
    }

    /// The stores that did not answer when they were looked for: they are not asked again.
    pub(crate) fn silent_stores(&self) -> &[StoreSpec] {
        &self.stores().silent
    }

    /// Further stores that are known, by the configuration, the environment or the registry, each walked within the limit:
    /// links in them lead to what `asked` has, whether it was asked about them or not.
    pub(crate) fn other_stores(
        &self,
        asked: &[StoreSpec],
        contents: &Contents,
    ) -> Vec<(StoreSpec, Result<Scan, ScanError>)> {
        let stores = self.stores();
        let named =
            self.named.iter().chain(&self.left_out).map(|(spec, by)| (spec.clone(), *by == NamedBy::User));
        let known = contents.stores.keys().filter_map(|id| Some((id.parse().ok()?, false)));
        let (specs, by_user): (Vec<StoreSpec>, Vec<bool>) =
            named.chain(known).filter(|(spec, _)| !asked.contains(spec)).unzip();
        let mut others: Vec<StoreSpec> = Vec::new();
        let mut ids = stores.ids.clone();
        let mut found = Vec::new();
        for (store, by_user) in resolve(specs, self.store_limit).into_iter().zip(by_user) {
            let spec = store.spec;
            let is_new = !asked.contains(&spec)
                && !others.contains(&spec)
                && !found.iter().any(|(other, _)| *other == spec);
            let key = store.id.map(|id| (spec.kind(), id));
            if !is_new || key.is_some_and(|key| ids.contains(&key)) {
                continue;
            }
            ids.extend(key);
            let id = spec.id();
            let has_models =
                || contents.rows.iter().any(|row| row.summary.store == id && row.summary.present);
            match store.there {
                Err(late) => found.push((spec.clone(), Err(ScanError::late(&spec, late)))),
                // One that was never there, or of which nothing is left, has no links.
                Ok(false) if !by_user && !has_models() => {}
                Ok(_) => others.push(spec),
            }
        }
        let scans = scan_all(&others, &[], self.store_limit);
        found.extend(others.into_iter().zip(scans));
        found
    }

    /// A command about these stores, as a user has to say it: one that is found only because it was named must be named
    /// again.
    pub(crate) fn command<'a>(&self, words: &str, stores: impl IntoIterator<Item = &'a str>) -> String {
        let usual = if self.store_given { &self.left_out } else { &self.named };
        let mut command = format!("mlxman {words}");
        for store in stores {
            let found = || !self.store_given && self.stores().specs.iter().any(|spec| spec.id() == store);
            if !usual.iter().any(|(spec, _)| spec.id() == store) && !found() {
                command = format!("{command} --store {}", quoted(store));
            }
        }
        command
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

    /// Records the use of a model. Where that cannot be done, the use itself is not to fail for it.
    pub(crate) fn record_use(&self, store: &str, key: &str, by: &str) {
        let used = Use { time: self.now, store: store.to_owned(), key: key.to_owned(), by: by.to_owned() };
        if let Err(error) = self.registry.record_use(&used) {
            self.printer.warning(&format!("this use is not recorded: {error}"));
        }
    }

    /// A fast look that writes nothing, at this run's time and limits.
    pub(crate) fn looking(&self) -> SyncOptions {
        let mut options = SyncOptions::fast(self.now);
        options.store_limit = self.store_limit;
        options.silent = self.silent_stores().to_vec();
        options
    }
}

impl Stores {
    fn add(&mut self, store: Resolved) {
        if self.specs.contains(&store.spec) {
            return;
        }
        let id = store.id.map(|id| (store.spec.kind(), id));
        if id.is_some_and(|id| self.ids.contains(&id)) {
            return self.twice.push(store.spec);
        }
        self.ids.extend(id);
        if store.there.is_err() {
            self.silent.push(store.spec.clone());
        }
        self.specs.push(store.spec);
    }
}
