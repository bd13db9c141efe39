//! What a filter can ask of a model: one line in one table for each field.

use chrono::{DateTime, Utc};

/// What is known of one model. `None` is not known.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// The model's name in the registry.
    pub model: &'a str,
    /// The repository it came from, as `org/name`.
    pub repo_id: Option<&'a str>,
    /// The commit of its snapshot.
    pub revision: Option<&'a str>,
    /// The store it lies in, as `KIND=PATH`.
    pub store: &'a str,
    /// Branches and tags of the repository that point at its snapshot.
    pub refs: &'a [String],
    /// Tags of the user and of the catalog.
    pub tags: &'a [String],
    /// The quantization's label, in any spelling that [`normalize_quantization`](super::normalize_quantization) knows.
    pub quantization: Option<&'a str>,
    /// Labels of the quantizations that its directory holds side by side, where it holds several.
    pub quantization_variants: &'a [String],
    /// How it was quantized: `affine`, `awq`, …
    pub quantization_method: Option<&'a str>,
    /// The type of the weights that are not quantized.
    pub precision: Option<&'a str>,
    /// The format of the weights: `mlx`, `gguf`, …
    pub format: Option<&'a str>,
    /// The architecture: `llama`, `flux`, …
    pub arch: Option<&'a str>,
    /// What it makes or takes: `text`, `image`, …
    pub modality: Option<&'a str>,
    /// The licence's identifier.
    pub license: Option<&'a str>,
    /// The repository of the model that it was made from.
    pub base_model: Option<&'a str>,
    /// The kind of adapter that it is, or has in it.
    pub adapter_kind: Option<&'a str>,
    /// Whether an adapter is fused into the weights.
    pub fused: Option<bool>,
    /// Its health in a word.
    pub health: &'a str,
    /// The kinds of the problems it has.
    pub problems: Vec<&'a str>,
    /// Whether its files are on the disk.
    pub present: bool,
    /// Whether the user pinned it.
    pub pinned: bool,
    /// Whether no ref points at its snapshot.
    pub detached: Option<bool>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// The bytes that the filesystem gets back if only this goes.
    pub reclaimable_bytes: Option<u64>,
    /// The number of its parameters.
    pub params: Option<u64>,
    /// The longest context, in tokens.
    pub context_length: Option<u64>,
    /// When it was last used.
    pub used: Option<DateTime<Utc>>,
    /// When its newest file was modified.
    pub modified: Option<DateTime<Utc>>,
    /// When its contents were last checked.
    pub checked: Option<DateTime<Utc>>,
    /// What came of that.
    pub integrity: Option<&'a str>,
    /// When it was last verified.
    pub verified: Option<DateTime<Utc>>,
    /// What came of that.
    pub verdict: Option<&'a str>,
    /// Prompt tokens a second that it read then.
    pub prompt_tps: Option<f64>,
    /// Tokens a second that it generated then.
    pub generation_tps: Option<f64>,
}

/// What a field holds, which settles the operators and values it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A size, compared in bytes; see [`parse_bytes`](super::quantity::parse_bytes).
    Bytes,
    /// A whole number; see [`parse_count`](super::quantity::parse_count).
    Count,
    /// A measured number, with a fraction.
    Number,
    /// A time, compared as an age or with a date (of UTC) or an RFC 3339 time.
    Age,
    /// A text, compared without regard to case.
    Text,
    /// A quantization label, in any spelling.
    Label,
    /// Yes or no.
    Bool,
    /// Texts: `=` and `~` ask for any one of them; `none` is the empty list.
    List,
}

impl Kind {
    /// The kind in words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Bytes => "a number of bytes",
            Self::Count => "a whole number",
            Self::Number => "a number",
            Self::Age => "an age or a date",
            Self::Text | Self::Label => "a text",
            Self::Bool => "yes or no",
            Self::List => "a list of texts",
        }
    }

    /// Values of the kind, for messages and help.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Bytes => "1.5GB or 1MiB",
            Self::Count => "7B or 8192",
            Self::Number => "20 or 0.5",
            Self::Age => "30d, 2w, 12h, 6mo, 1y, 2026-01-31 or 2026-01-31T08:00:00Z",
            Self::Text | Self::List => "a word, or a quoted text",
            Self::Label => "4bit or bf16",
            Self::Bool => "true or false",
        }
    }

    /// The operators it takes, for messages and help.
    #[must_use]
    pub fn operators(self) -> &'static str {
        match self {
            Self::Bytes | Self::Count | Self::Number | Self::Age => "`>`, `>=`, `<`, `<=`, `=` or `!=`",
            Self::Text | Self::Label | Self::List => "`=`, `!=`, `~` or `!~`",
            Self::Bool => "`=` or `!=`",
        }
    }
}

/// What a field holds for one model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Of [`Kind::Bytes`] and [`Kind::Count`].
    Whole(u64),
    /// Of [`Kind::Number`].
    Number(f64),
    /// Of [`Kind::Age`].
    Time(DateTime<Utc>),
    /// Of [`Kind::Text`] and [`Kind::Label`].
    Text(&'a str),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::List`].
    List(Vec<&'a str>),
}

/// The value of a field for a model, if it is known.
type Getter = for<'a> fn(&Facts<'a>) -> Option<Value<'a>>;

/// One field that a filter can name.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Other names that mean it.
    pub aliases: &'static [&'static str],
    /// What it holds.
    pub kind: Kind,
    /// What it says of a model, for help.
    pub about: &'static str,
    pub(super) get: Getter,
}

impl Field {
    /// The field's value for a model; `None` where it is not known.
    #[must_use]
    pub fn value<'a>(&self, facts: &Facts<'a>) -> Option<Value<'a>> {
        (self.get)(facts)
    }
}

const fn row(
    name: &'static str,
    aliases: &'static [&'static str],
    kind: Kind,
    about: &'static str,
    get: Getter,
) -> Field {
    Field { name, aliases, kind, about, get }
}

#[rustfmt::skip]
static FIELDS: &[Field] = &[
    row("model", &["name"], Kind::Text, "its name in the registry", |f| Some(Value::Text(f.model))),
    row("repo", &["repo_id", "source"], Kind::Text, "the repository it came from", |f| f.repo_id.map(Value::Text)),
    row("revision", &["rev", "commit"], Kind::Text, "the commit of its snapshot", |f| f.revision.map(Value::Text)),
    row("refs", &["ref", "branch"], Kind::List, "branches and tags that point at it", |f| Some(texts(f.refs))),
    row("store", &[], Kind::List, "the store it lies in: kind, path, or KIND=PATH", |f| Some(store(f.store))),
    row("tags", &["tag"], Kind::List, "its tags", |f| Some(texts(f.tags))),
    row("format", &[], Kind::Text, "the format of the weights", |f| f.format.map(Value::Text)),
    row("arch", &["architecture", "model_type"], Kind::Text, "the architecture", |f| f.arch.map(Value::Text)),
    row("modality", &[], Kind::Text, "what it makes or takes", |f| f.modality.map(Value::Text)),
    row("params", &["parameters"], Kind::Count, "the number of parameters", |f| f.params.map(Value::Whole)),
    row("context", &["context_length"], Kind::Count, "the longest context, in tokens", |f| f.context_length.map(Value::Whole)),
    row("quantization", &["quant"], Kind::Label, "the quantization's label", |f| f.quantization.map(Value::Text)),
    row("method", &["quantization_method"], Kind::Text, "how it was quantized", |f| f.quantization_method.map(Value::Text)),
    row("precision", &["dtype"], Kind::Label, "the type of the weights that are not quantized", |f| f.precision.map(Value::Text)),
    row("adapter", &["adapter_kind"], Kind::Text, "the adapter that it is or has in it", |f| f.adapter_kind.map(Value::Text)),
    row("fused", &[], Kind::Bool, "an adapter is fused into the weights", |f| f.fused.map(Value::Bool)),
    row("license", &["licence"], Kind::Text, "the licence", |f| f.license.map(Value::Text)),
    row("base", &["base_model"], Kind::Text, "the model it was made from", |f| f.base_model.map(Value::Text)),
    row("health", &[], Kind::Text, "its health in a word", |f| Some(Value::Text(f.health))),
    row("problem", &["problems"], Kind::List, "the kinds of its problems", |f| Some(Value::List(f.problems.clone()))),
    row("present", &[], Kind::Bool, "its files are on the disk", |f| Some(Value::Bool(f.present))),
    row("pinned", &["pin"], Kind::Bool, "the user pinned it", |f| Some(Value::Bool(f.pinned))),
    row("detached", &[], Kind::Bool, "no ref points at its snapshot", |f| f.detached.map(Value::Bool)),
    row("size", &["size_bytes", "bytes"], Kind::Bytes, "its size on the disk", |f| f.size_bytes.map(Value::Whole)),
    row("reclaimable", &["reclaimable_bytes"], Kind::Bytes, "what is freed if only this goes", |f| f.reclaimable_bytes.map(Value::Whole)),
    row("used", &["last_used"], Kind::Age, "when it was last used", |f| f.used.map(Value::Time)),
    row("modified", &["last_modified"], Kind::Age, "when its newest file was modified", |f| f.modified.map(Value::Time)),
    row("verified", &["verified_at"], Kind::Age, "when it was last verified", |f| f.verified.map(Value::Time)),
    row("verdict", &[], Kind::Text, "what came of that: pass or fail", |f| f.verdict.map(Value::Text)),
    row("checked", &["checked_at"], Kind::Age, "when its contents were last checked", |f| f.checked.map(Value::Time)),
    row("integrity", &[], Kind::Text, "what came of that: pass or fail", |f| f.integrity.map(Value::Text)),
    row("tps", &["generation_tps"], Kind::Number, "tokens a second that it generated then", |f| f.generation_tps.map(Value::Number)),
    row("prompt_tps", &[], Kind::Number, "prompt tokens a second that it read then", |f| f.prompt_tps.map(Value::Number)),
];

fn texts(texts: &[String]) -> Value<'_> {
    Value::List(texts.iter().map(String::as_str).collect())
}

fn store(store: &str) -> Value<'_> {
    let parts = store.split_once('=').map_or_else(Vec::new, |(kind, path)| vec![kind, path]);
    Value::List(std::iter::once(store).chain(parts).collect())
}

/// All the fields that a filter can name.
#[must_use]
pub fn fields() -> &'static [Field] {
    FIELDS
}

/// The field of that name or alias, in any case, `-` being as good as `_`.
#[must_use]
pub fn field(name: &str) -> Option<&'static Field> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    FIELDS.iter().find(|field| field.name == name || field.aliases.contains(&name.as_str()))
}
