//! The YAML front matter of a model card: what stands between two `---` lines at the top of `README.md`.
//!
//! People write it by hand, `huggingface_hub`, mlx-lm's converter and the hub's editor by program; the hub reads it
//! with js-yaml. Of its fields, those that tell a model's origin and use are kept.

mod yaml;

use std::io::{self, Read};

use self::yaml::Node;

/// How much of a README is looked at, in bytes.
pub const MAX_README_LEN: u64 = 256 << 10;

/// The longest front matter that is parsed, in bytes.
pub const MAX_FRONT_MATTER_LEN: usize = 64 << 10;

/// The deepest nesting of lists and mappings. A card's `model-index` has nine levels.
pub const MAX_DEPTH: usize = 32;

/// Why front matter that is there could not be read.
///
/// Lines are lines of the README, counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontMatterError {
    /// The reader failed.
    #[error("it could not be read")]
    Io(#[from] io::Error),
    /// More than [`MAX_FRONT_MATTER_LEN`] bytes between the markers.
    #[error("its front matter has {len} bytes, more than the {MAX_FRONT_MATTER_LEN} allowed")]
    TooLarge {
        /// Bytes between the markers.
        len: usize,
    },
    /// Front matter that is not UTF-8.
    #[error("its front matter is not UTF-8 text")]
    NotUtf8,
    /// Not YAML.
    #[error("its front matter is not valid YAML: {message}, at line {line}")]
    Yaml {
        /// Where the parser stopped.
        line: usize,
        /// What it found.
        message: String,
    },
    /// YAML, but no mapping of names to values.
    #[error("its front matter is no mapping of names to values")]
    NotMapping,
    /// Deeper than [`MAX_DEPTH`].
    #[error("its front matter nests deeper than {MAX_DEPTH} levels, at line {line}")]
    TooDeep {
        /// Where it does.
        line: usize,
    },
    /// An alias of a list or a mapping, or of too much text: a few lines of them can stand for gigabytes, and no card
    /// needs one.
    #[error("its front matter repeats a list, a mapping or a long text by an alias, at line {line}")]
    Alias {
        /// Where the alias stands.
        line: usize,
    },
}

/// What a model card says of its model.
///
/// Where the hub takes one string or a list of them, a single string becomes a list of one. Values of another kind
/// than the field's are left out, numbers and booleans are taken as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontMatter {
    /// `base_model`: ids on the hub of what this was made from; several for a merge.
    pub base_model: Vec<String>,
    /// `base_model_relation`: `quantized`, `finetune`, `adapter` or `merge`.
    pub base_model_relation: Option<String>,
    /// `license`: an id such as `apache-2.0`, or `other`. Of a list, its entries with commas between them.
    pub license: Option<String>,
    /// `license_name`: what `other` stands for.
    pub license_name: Option<String>,
    /// `license_link`: where its text is.
    pub license_link: Option<String>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `library_name`: `mlx`, `transformers`, `peft`, `gguf`.
    pub library_name: Option<String>,
    /// `pipeline_tag`: the task, such as `text-generation`.
    pub pipeline_tag: Option<String>,
    /// `quantized_by`: who made this conversion.
    pub quantized_by: Option<String>,
    /// `language`: ISO 639 codes.
    pub language: Vec<String>,
    /// `datasets`: ids on the hub of what it was trained on.
    pub datasets: Vec<String>,
}

impl FrontMatter {
    /// Reads a README's front matter; `None` where there is none, or no end marker in the first
    /// [`MAX_README_LEN`] bytes.
    ///
    /// # Errors
    /// See [`FrontMatterError`].
    pub fn read(reader: impl Read) -> Result<Option<Self>, FrontMatterError> {
        let mut bytes = Vec::new();
        reader.take(MAX_README_LEN).read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// The same of a README in memory, the whole of it looked at.
    ///
    /// # Errors
    /// See [`FrontMatterError`].
    pub fn parse(readme: &[u8]) -> Result<Option<Self>, FrontMatterError> {
        let Some((first_line, yaml)) = between_markers(readme) else { return Ok(None) };
        if yaml.len() > MAX_FRONT_MATTER_LEN {
            return Err(FrontMatterError::TooLarge { len: yaml.len() });
        }
        let yaml = std::str::from_utf8(yaml).map_err(|_| FrontMatterError::NotUtf8)?;
        match yaml::parse(yaml, first_line)? {
            Node::Null => Ok(Some(Self::default())),
            Node::Mapping(fields) => Ok(Some(Self::from_fields(fields))),
            Node::Text(_) | Node::List(_) => Err(FrontMatterError::NotMapping),
        }
    }

    fn from_fields(fields: Vec<(Node, Node)>) -> Self {
        let mut card = Self::default();
        for (key, value) in fields {
            let Node::Text(key) = key else { continue };
            match key.as_str() {
                "base_model" => card.base_model = value.into_texts(),
                "base_model_relation" => card.base_model_relation = value.into_text(),
                "license" => card.license = Some(value.into_texts().join(", ")).filter(|l| !l.is_empty()),
                "license_name" => card.license_name = value.into_text(),
                "license_link" => card.license_link = value.into_text(),
                "tags" => card.tags = value.into_texts(),
                "library_name" => card.library_name = value.into_text(),
                "pipeline_tag" => card.pipeline_tag = value.into_text(),
                "quantized_by" => card.quantized_by = value.into_text(),
                "language" => card.language = value.into_texts(),
                "datasets" => card.datasets = value.into_texts(),
                _ => {}
            }
        }
        card
    }
}

/// What stands between the `---` lines, and the number of its first line; `None` where either marker is missing.
///
/// The first marker may follow empty lines, as on the hub; blanks behind a marker do no harm.
fn between_markers(readme: &[u8]) -> Option<(usize, &[u8])> {
    let readme = readme.strip_prefix(b"\xef\xbb\xbf").unwrap_or(readme);
    let mut start = None;
    let mut at = 0;
    for (number, line) in readme.split_inclusive(|&b| b == b'\n').enumerate() {
        let next = at + line.len();
        match (start, line.trim_ascii_end()) {
            (None, b"---") => start = Some((number + 2, next)),
            (None, b"") => {}
            (None, _) => return None,
            (Some((first_line, start)), b"---") => return Some((first_line, &readme[start..at])),
            (Some(_), _) => {}
        }
        at = next;
    }
    None
}

#[cfg(test)]
mod tests;
