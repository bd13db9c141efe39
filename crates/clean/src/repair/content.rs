use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file is going to hold: told by its size and hash, for an index may have megabytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// Their BLAKE3.
    pub blake3: String,
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Content { size: bytes.len() as u64, blake3: blake3::hash(&bytes).to_hex().to_string(), bytes }
    }

    /// The bytes; none of a content that was read from JSON, which does not have them.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        (self.bytes.len() as u64 == self.size).then_some(&self.bytes)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("size", &self.size)
            .field("blake3", &self.blake3)
            .finish_non_exhaustive()
    }
}
