//! What was observed and what the user said, put together into one document.
//!
//! Observation never overwrites the user: what the user said stands in `user` and is laid over the observation anew at
//! each sync. Fields that this program does not know are somebody else's and survive.

use serde_json::{Map, Value};

use crate::record::{AdapterKind, Evidence, Manifest, UserLayer};
use crate::schema::{Form, Rejected, check_manifest, known_fields};

/// What carried-over values give as their evidence.
pub(super) const ORIGINAL: &str = "original manifest";

/// Fields of the record that the user can't set: what it is, where it is, and what was measured.
const FIXED: [&str; 14] = [
    "schema_version",
    "model_path",
    "store",
    "key",
    "storage",
    "health",
    "verification",
    "integrity",
    "user",
    "evidence",
    "generated_at",
    "generator",
    "pinned",
    "notes",
];

/// Checks that `field` is one that an override may set.
pub(super) fn check_override(field: &str) -> Result<(), Rejected> {
    let reject = |why: String| Err(Rejected { field: field.to_owned(), why });
    let path: Vec<&str> = field.split('.').collect();
    let (parents, last) = path.split_at(path.len() - 1);
    if FIXED.contains(&path[0]) {
        return reject(
            "is not yours to set: it says what lies on the disk, or has a command of its own".to_owned(),
        );
    }
    let Some(known) = known_fields(parents) else {
        return reject("is no field of a manifest; mlxman schema manifest lists them".to_owned());
    };
    if !known.iter().any(|name| name == last[0]) {
        return reject(format!("is no field of a manifest; here it has {}", known.join(", ")));
    }
    Ok(())
}

/// What else is known when a document is put together.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// The tags that this program wrote last into the existing document, where that is known.
    pub(super) written_tags: Option<&'a [String]>,
    /// What the user said in further manifests of the model.
    pub(super) words: Vec<UserLayer>,
    /// The stamp of the model's files.
    pub(super) files: &'a str,
}

/// Puts the document together.
///
/// # Errors
/// When a user's override makes the document one that its schema rejects.
pub(super) fn merge(
    mut observed: Manifest,
    existing: Option<(Form, &Value)>,
    same_weights: bool,
    known: &Known<'_>,
) -> Result<Value, Rejected> {
    let mut user = UserLayer::default();
    if let Some((form, old)) = existing {
        user = words_of(form, old);
        match form {
            Form::Current => {
                tags_by_hand(&mut user, old, &observed, known.written_tags);
                carry(&mut observed, old, same_weights);
                observed.verification = super::verified::carried(old, "verification", known.files);
                observed.integrity = super::verified::carried(old, "integrity", known.files);
            }
            Form::Original => upgrade(&mut observed, old),
        }
    }
    known.words.iter().for_each(|more| add_words(&mut user, more.clone()));
    apply_user(&mut observed, &user);
    let mut document = serde_json::to_value(&observed)
        .map_err(|error| Rejected { field: String::new(), why: error.to_string() })?;
    for (field, value) in &user.overrides {
        set(&mut document, field, value.clone());
        set_evidence(&mut document, field);
    }
    if let Some((_, old)) = existing {
        keep_unknown(&mut document, old, &mut Vec::new());
        if without_time(&document) == without_time(old)
            && let Some(time) = old.get("generated_at")
        {
            document["generated_at"] = time.clone();
        }
    }
    check_manifest(&document)?;
    Ok(document)
}

/// What the user said in a manifest: in its `user` part, and by hand in the fields that show it.
pub(super) fn words_of(form: Form, document: &Value) -> UserLayer {
    let mut user: UserLayer = match form {
        Form::Current => document.get("user").cloned().map(serde_json::from_value).and_then(Result::ok),
        // The original scripts got tags from the user's registry, so they are the user's words.
        Form::Original => document.get("tags").and_then(Value::as_array).map(|tags| UserLayer {
            tags: tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            ..UserLayer::default()
        }),
    }
    .unwrap_or_default();
    let by_hand = UserLayer {
        pinned: document.get("pinned").and_then(Value::as_bool).unwrap_or(false),
        notes: document
            .get("notes")
            .and_then(Value::as_str)
            .filter(|notes| !notes.trim().is_empty())
            .map(str::to_owned),
        ..UserLayer::default()
    };
    add_words(&mut user, by_hand);
    user
}

/// Adds what the user said elsewhere. Nothing that was said gets lost: a pin holds, and of two notes neither replaces
/// the other.
pub(super) fn add_words(user: &mut UserLayer, more: UserLayer) {
    user.pinned |= more.pinned;
    user.notes = match (user.notes.take(), more.notes) {
        (Some(mine), Some(theirs)) if mine.contains(theirs.trim()) => Some(mine),
        (Some(mine), Some(theirs)) if theirs.contains(mine.trim()) => Some(theirs),
        (Some(mine), Some(theirs)) => Some(format!("{mine}\n{theirs}")),
        (mine, theirs) => mine.or(theirs),
    };
    let same = |a: &String, b: &String| a.eq_ignore_ascii_case(b);
    for tag in more.tags {
        if !user.untagged.iter().chain(&user.tags).any(|known| same(known, &tag)) {
            user.tags.push(tag);
        }
    }
    for tag in more.untagged {
        if !user.untagged.iter().chain(&user.tags).any(|known| same(known, &tag)) {
            user.untagged.push(tag);
        }
    }
    for (field, value) in more.overrides {
        user.overrides.entry(field).or_insert(value);
    }
}

/// Tags that stand in the document and that neither this program wrote nor anything found: the user's own.
fn tags_by_hand(user: &mut UserLayer, old: &Value, observed: &Manifest, written: Option<&[String]>) {
    if user.overrides.contains_key("tags") {
        return;
    }
    let tags = old.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let new: Vec<String> = tags
        .filter(|tag| !tag.trim().is_empty())
        .filter(|tag| !written.unwrap_or_default().iter().chain(&observed.tags).any(|known| known == tag))
        .map(str::to_owned)
        .collect();
    add_words(user, UserLayer { tags: new, ..UserLayer::default() });
}

/// Lays the user's words over the observed fields.
pub(super) fn apply_user(manifest: &mut Manifest, user: &UserLayer) {
    manifest.tags.retain(|tag| !user.untagged.iter().any(|gone| gone.eq_ignore_ascii_case(tag)));
    manifest.tags.extend(user.tags.iter().cloned());
    manifest.tags.sort_unstable();
    manifest.tags.dedup();
    manifest.notes = user.notes.clone();
    manifest.pinned = user.pinned;
    manifest.user = user.clone();
}

/// The document after the user said something: what was observed stays as it stands.
pub(super) fn merge_edited(manifest: &Manifest, old: &Value, user: &UserLayer) -> Result<Value, Rejected> {
    let failed = |error: serde_json::Error| Rejected { field: String::new(), why: error.to_string() };
    let mut document = serde_json::to_value(manifest).map_err(failed)?;
    for (field, value) in &user.overrides {
        set(&mut document, field, value.clone());
        set_evidence(&mut document, field);
    }
    keep_unknown(&mut document, old, &mut Vec::new());
    check_manifest(&document)?;
    Ok(document)
}

fn without_time(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(map) = document.as_object_mut() {
        map.remove("generated_at");
    }
    document
}

fn set(document: &mut Value, field: &str, value: Value) {
    let mut here = document;
    let mut names = field.split('.').peekable();
    while let Some(name) = names.next() {
        let Some(map) = here.as_object_mut() else { return };
        if names.peek().is_none() {
            map.insert(name.to_owned(), value);
            return;
        }
        here = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
}

fn set_evidence(document: &mut Value, field: &str) {
    let evidence = Evidence { file: "user".to_owned(), key: Some("--override".to_owned()) };
    if let (Some(map), Ok(evidence)) =
        (document.get_mut("evidence").and_then(Value::as_object_mut), serde_json::to_value(evidence))
    {
        map.insert(field.to_owned(), evidence);
    }
}

/// Keeps fields of `old` that the record does not have.
fn keep_unknown(document: &mut Value, old: &Value, path: &mut Vec<String>) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some(known) = known_fields(&names) else { return };
    let (Some(document), Some(old)) = (document.as_object_mut(), old.as_object()) else { return };
    for (name, value) in old {
        if !known.contains(name) {
            document.entry(name.clone()).or_insert_with(|| value.clone());
        } else if let Some(mine) = document.get_mut(name) {
            path.push(name.clone());
            keep_unknown(mine, value, path);
            path.pop();
        }
    }
}

/// What an earlier sync knew and this one can't find out again.
fn carry(observed: &mut Manifest, old: &Value, same_weights: bool) {
    let Ok(before) = serde_json::from_value::<Manifest>(old.clone()) else { return };
    if same_weights
        && observed.adapter.comparison.is_none()
        && let Some(comparison) = before.adapter.comparison.clone()
    {
        super::compared(observed, comparison);
    }
    let from_original: Vec<&String> = before
        .evidence
        .iter()
        .filter(|(_, evidence)| evidence.file == ORIGINAL)
        .map(|(field, _)| field)
        .collect();
    for field in from_original {
        let kept = match field.as_str() {
            "variant" => take(&mut observed.variant, before.variant.clone()),
            "source.repo_id" => take(&mut observed.source.repo_id, before.source.repo_id.clone()),
            "precision" => take(&mut observed.precision, before.precision.clone()),
            "quantization.label" => take(&mut observed.quantization.label, before.quantization.label.clone()),
            "adapter.allows_lora" => take(&mut observed.adapter.allows_lora, before.adapter.allows_lora),
            "adapter.currently_fused" => {
                take(&mut observed.adapter.currently_fused, before.adapter.currently_fused)
            }
            "adapter.fused_from" => take(&mut observed.adapter.fused_from, before.adapter.fused_from.clone()),
            _ => false,
        };
        if kept && let Some(evidence) = before.evidence.get(field) {
            observed.evidence.insert(field.clone(), evidence.clone());
        }
    }
    if let Some(evidence) = before.evidence.get("key").filter(|evidence| evidence.file == ORIGINAL) {
        observed.evidence.insert("key".to_owned(), evidence.clone());
    }
    settle_fused(observed);
    observed.source_id = observed.source.repo_id.clone();
}

fn take<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    if slot.is_none() && value.is_some() {
        *slot = value;
        return true;
    }
    false
}

/// Takes over what an original manifest says and no file does.
fn upgrade(observed: &mut Manifest, old: &Value) {
    let text =
        |value: Option<&Value>| value.and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let adapter = old.get("adapter");
    let in_adapter = |key: &str| adapter.and_then(|adapter| adapter.get(key));
    let mut said = Vec::new();
    let mut note = |field: &'static str, taken: bool, key: &'static str| {
        if taken {
            said.push((field, key));
        }
    };
    note("variant", take(&mut observed.variant, text(old.get("variant"))), "variant");
    note("source.repo_id", take(&mut observed.source.repo_id, text(old.get("source_id"))), "source_id");
    note("precision", take(&mut observed.precision, text(old.get("precision"))), "precision");
    note(
        "quantization.label",
        take(&mut observed.quantization.label, text(old.get("quantization"))),
        "quantization",
    );
    let allows = in_adapter("allows_lora").and_then(Value::as_bool);
    note("adapter.allows_lora", take(&mut observed.adapter.allows_lora, allows), "adapter.allows_lora");
    let fused = in_adapter("currently_fused").and_then(Value::as_bool);
    note(
        "adapter.currently_fused",
        take(&mut observed.adapter.currently_fused, fused),
        "adapter.currently_fused",
    );
    let from = text(in_adapter("fused_from"));
    note("adapter.fused_from", take(&mut observed.adapter.fused_from, from), "adapter.fused_from");
    for (field, key) in said {
        observed.evidence.insert(field.to_owned(), Evidence::new(ORIGINAL, key));
    }
    // Such a manifest keeps the name that old tools know, also where the model's directory has another.
    if let Some(model) = old.get("model").and_then(Value::as_str).filter(|model| *model != observed.key) {
        observed.evidence.insert("key".to_owned(), Evidence::new(ORIGINAL, model));
    }
    settle_fused(observed);
    observed.source_id = observed.source.repo_id.clone();
}

fn settle_fused(observed: &mut Manifest) {
    let by_original =
        observed.evidence.get("adapter.currently_fused").is_some_and(|evidence| evidence.file == ORIGINAL);
    if by_original
        && observed.adapter.currently_fused == Some(true)
        && observed.adapter.kind != AdapterKind::Adapter
    {
        observed.adapter.kind = AdapterKind::Fused;
        observed
            .evidence
            .insert("adapter.kind".to_owned(), Evidence::new(ORIGINAL, "adapter.currently_fused"));
    }
}
