//! The provenance record of a model, and the registry that keeps the records.
//!
//! [`inspect`] finds out what one model is from its files; [`registry`] keeps a [`Manifest`] for each, merges what was
//! observed with what the user said, and brings itself up to date with the stores. Nothing here prints, deletes a
//! model, or downloads.

pub mod catalog;
mod compare;
pub mod formats;
mod inspect;
mod integrity;
mod record;
pub mod registry;
mod schema;
mod summary;
mod threads;
mod verification;

pub use compare::{CompareError, Side, SideFile, compare};
pub use inspect::{Observation, inspect};
pub use integrity::{ChangedFile, ChangedSince, DamagedFile, DamagedHow, Integrity, MissingFile};
pub use record::{
    Adapter, AdapterKind, Architecture, Comparison, Evidence, FileRecord, Format, Health, HealthStatus,
    Manifest, Quantization, SCHEMA_VERSION, Source, Storage, UserLayer,
};
pub use schema::{
    Form, Rejected, catalog_schema, check_manifest, manifest_schema, original_schema, schema_of,
};
pub use summary::Summary;
pub use verification::{
    AnswersCompared, Spread, Verdict, Verification, VerifiedLevel, VerifiedModel, VerifiedSummary,
};
