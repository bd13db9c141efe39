//! Verifying models: does each one load and generate, and how fast.
//!
//! Nothing here links MLX: a model is loaded by a worker, a process of its own, so that whatever happens to it is that
//! model's result and never the end of the run. What the two say to each other is [`protocol`].

mod answers;
pub mod integrity;
mod judge;
pub mod machine;
pub mod protocol;
mod run;
mod structure;
mod words;
mod worker;

pub use answers::{
    KeptAnswers, MOST_GREEDY, MOST_PROMPT_TOKENS, PROMPT_TOKENS, Reference, compare, question,
};
pub use run::{Answering, Base, Observer, Outcome, Plan, Run, Task, run};
pub use structure::{Structure, check};
pub use worker::{Launch, kill_all};

use mlxman_manifest::VerifiedModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of [`Results`].
pub const RESULTS_SCHEMA: &str = "mlxman-verify-1";

/// What `verify --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mlxman verify")]
pub struct Results {
    /// `mlxman-verify-1`.
    pub schema: String,
    /// The models, in the order of their names or as they were named.
    pub results: Vec<VerifiedModel>,
    /// At the level `integrity`: all contents together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<integrity::IntegritySummary>,
}

impl Results {
    /// The results under the name of their form.
    pub fn new(results: Vec<VerifiedModel>) -> Self {
        Results { schema: RESULTS_SCHEMA.to_owned(), results, integrity: None }
    }
}

/// The architectures that a decoder is known for, by their `model_type`.
pub fn families() -> impl Iterator<Item = &'static str> {
    mlxman_lm::families::FAMILIES.iter().flat_map(|family| family.names.iter().copied())
}

/// Starts a worker, asks what it computes with, and ends it.
///
/// # Errors
/// When there is none, it has no MLX, or it does not start: for people, with what to do.
pub fn probe(launch: &Launch) -> Result<protocol::EngineInfo, String> {
    let worker = worker::Worker::start(launch, &|| false).map_err(|error| error.to_string())?;
    let engine = worker.engine.clone();
    worker.farewell();
    Ok(engine)
}

impl From<protocol::Level> for mlxman_manifest::VerifiedLevel {
    fn from(level: protocol::Level) -> Self {
        match level {
            protocol::Level::Structure => Self::Structure,
            protocol::Level::Load => Self::Load,
            protocol::Level::Generate => Self::Generate,
        }
    }
}
