//! What a plan may not be: it is a file that anybody may have written.

use std::collections::HashSet;

use crate::plan::{Candidate, PLAN_VERSION, Plan};
use crate::trash::is_in_trash;

/// Why a plan is refused as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It has another form.
    #[error(
        "the plan has the form {found}, and this mlxman knows {PLAN_VERSION}; make a new one with `mlxman clean preview --out`"
    )]
    Version {
        /// Its form.
        found: u32,
    },
    /// It names what lies outside of its store, or in its trash.
    #[error("the plan names `{path}`, which is no path in {store}; nothing was touched")]
    Outside {
        /// What it names.
        path: String,
        /// The store.
        store: String,
    },
    /// It contradicts itself.
    #[error("the plan is no plan that mlxman wrote: {why}; nothing was touched")]
    Contradiction {
        /// How.
        why: String,
    },
    /// Its store is another one now.
    #[error(
        "{store} is not the directory that the plan was made for (another machine's, or its volume was changed); \
         make a new plan; nothing was touched"
    )]
    OtherStore {
        /// The store.
        store: String,
    },
}

/// Which rows of a plan are wanted: stores, and what they have there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only(HashSet<(String, String)>);

impl Only {
    /// Whether a model, by its key, or something else, by its path, is wanted.
    pub(crate) fn has(&self, store: &str, place: &str) -> bool {
        self.0.contains(&(store.to_owned(), place.to_owned()))
    }
}

pub(super) fn place_of(row: &Candidate) -> &str {
    row.key.as_deref().or(row.path.as_deref()).unwrap_or_default()
}

impl Plan {
    /// Its rows.
    pub fn only(&self) -> Only {
        Only(self.candidates.iter().map(|row| (row.store.clone(), place_of(row).to_owned())).collect())
    }

    /// Makes sure that it names nothing that a plan may not name. A plan is a file that anybody may have written.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        if self.schema_version != PLAN_VERSION {
            return Err(PlanError::Version { found: self.schema_version });
        }
        let contradiction = |why: String| Err(PlanError::Contradiction { why });
        let stores: HashSet<&str> = self.stores.iter().map(|store| store.store.as_str()).collect();
        if stores.len() < self.stores.len() {
            return contradiction("it names a store twice".to_owned());
        }
        let mut places = HashSet::new();
        for row in &self.candidates {
            let place = place_of(row);
            if !stores.contains(row.store.as_str()) {
                return contradiction(format!("{place} is in {}, which is none of its stores", row.store));
            }
            let is_bad = |path: &str| !mlxman_store::is_safe_relative(path) || is_in_trash(path);
            // A model may be the root of its store, which then keeps its directory.
            let own = std::iter::once(place).filter(|place| !place.is_empty());
            let items = row.items.iter().map(|item| item.path.as_str());
            if let Some(path) = own.chain(items).find(|path| is_bad(path)) {
                return Err(PlanError::Outside { path: path.to_owned(), store: row.store.clone() });
            }
            if !places.insert((row.store.as_str(), place)) {
                return contradiction(format!("{place} is in it twice"));
            }
        }
        for shared in &self.shared_items {
            let rows: Option<Vec<&Candidate>> =
                shared.needs.iter().map(|row| self.candidates.get(*row)).collect();
            let Some([first, rest @ ..]) = rows.as_deref() else {
                return contradiction(format!("{} belongs to rows that it has not", shared.item.path));
            };
            if rest.iter().any(|row| row.store != first.store) {
                return contradiction(format!("{} is in several stores", shared.item.path));
            }
            let path = &shared.item.path;
            if !mlxman_store::is_safe_relative(path) || is_in_trash(path) {
                return Err(PlanError::Outside { path: path.clone(), store: first.store.clone() });
            }
        }
        Ok(())
    }
}
