//! One text that a name can match: as itself, or as a glob.

use globset::{GlobBuilder, GlobMatcher};

/// A name, or a glob over names, compared without regard to case.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    lower: String,
    glob: Option<GlobMatcher>,
}

impl Pattern {
    /// A pattern of `text`: a glob where it has `*`, `?` or `[`, else only itself. In a glob with a `/`, `*` stays
    /// within one component of the name; in one without, it matches across them.
    pub(super) fn new(text: &str) -> Result<Self, globset::Error> {
        let lower = text.to_lowercase();
        let glob = if is_glob(text) { Some(compile(&lower, lower.contains('/'))?) } else { None };
        Ok(Self { lower, glob })
    }

    /// Whether `name` is this text, or matches this glob.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        name == self.lower || self.glob.as_ref().is_some_and(|glob| glob.is_match(&name))
    }

    /// Whether the text, where it is no glob, lies somewhere in `name`; else as [`matches`](Self::matches).
    pub(super) fn is_within(&self, name: &str) -> bool {
        match self.glob {
            Some(_) => self.matches(name),
            None => name.to_lowercase().contains(&self.lower),
        }
    }
}

/// Whether `text` would be taken for a glob.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// A matcher of `glob` as it stands, letter for letter.
pub(super) fn compile(glob: &str, literal_separator: bool) -> Result<GlobMatcher, globset::Error> {
    let glob = GlobBuilder::new(glob).literal_separator(literal_separator).backslash_escape(true).build()?;
    Ok(glob.compile_matcher())
}
