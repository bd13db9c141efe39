//! `mlxman show`: everything known of a model.

use anyhow::Result;
use mlxman_manifest::registry::Row;
use mlxman_manifest::{Manifest, Verification};
use mlxman_store::Severity;

use crate::args::Show;
use crate::context::Context;
use crate::exit::Verdict;
use crate::printer::plain;
use crate::select::{document, filter_set, matching, one};
use crate::table::{age, bytes, rate, reclaim};

pub(super) fn run(args: &Show, context: &Context) -> Result<Verdict> {
    let contents = context.contents()?;
    let mut rows: Vec<&Row> = Vec::new();
    for asked in &args.model {
        rows.push(one(context, &contents, asked)?);
    }
    if args.model.is_empty() {
        rows = matching(context, &contents, &filter_set(context, &args.filters)?);
    }
    let mut ailing = false;
    let mut documents = Vec::new();
    for row in rows {
        let (document, why) = document(context, row);
        ailing |= why.is_some() || (row.summary.ailing && row.summary.present);
        documents.push((row, document, why));
    }
    if context.printer.json {
        match documents.as_slice() {
            [(_, one, _)] if args.model.len() == 1 => context.printer.json(one)?,
            several => {
                context.printer.json(&several.iter().map(|(_, document, _)| document).collect::<Vec<_>>())?;
            }
        }
        return Ok(Verdict::of(ailing));
    }
    for (at, (row, document, why)) in documents.into_iter().enumerate() {
        if at > 0 {
            context.printer.data("")?;
        }
        if let Some(why) = why {
            context.printer.warning(&format!("{}: {why}", row.path.display()));
        }
        let manifest: Manifest = serde_json::from_value(document)?;
        context.printer.data(&page(&manifest, row, context))?;
    }
    Ok(Verdict::of(ailing))
}

/// The page, a field a line; behind a value, in brackets, what said so.
fn page(manifest: &Manifest, row: &Row, context: &Context) -> String {
    let mut page = Page { text: String::new(), manifest };
    page.line("model", &manifest.model);
    page.line("path", &manifest.model_path);
    page.line("store", &manifest.store);
    let source = &manifest.source;
    page.found("repo", "source.repo_id", source.repo_id.as_deref());
    let refs = match (source.refs.is_empty(), source.detached) {
        (false, _) => format!(" ({})", source.refs.join(", ")),
        (true, Some(true)) => " (detached: no ref names it)".to_owned(),
        _ => String::new(),
    };
    page.found(
        "revision",
        "source.revision",
        source.revision.as_ref().map(|revision| format!("{revision}{refs}")).as_deref(),
    );
    let relation =
        source.base_model_relation.as_ref().map(|relation| format!(" ({relation})")).unwrap_or_default();
    let base = (!source.base_model.is_empty()).then(|| format!("{}{relation}", source.base_model.join(", ")));
    page.found("base model", "source.base_model", base.as_deref());
    page.found("licence", "source.license", source.license.as_deref());
    page.found("format", "format", Some(manifest.format.word()));
    let shape = &manifest.architecture;
    page.found("architecture", "architecture.model_type", shape.model_type.as_deref());
    page.found("modality", "architecture.modality", shape.modality.as_deref());
    for (name, field, value) in [
        ("layers", "architecture.layers", shape.layers),
        ("hidden size", "architecture.hidden_size", shape.hidden_size),
        ("heads", "architecture.attention_heads", shape.attention_heads),
        ("key/value heads", "architecture.key_value_heads", shape.key_value_heads),
        ("experts", "architecture.experts", shape.experts),
        ("context", "architecture.context_length", shape.context_length),
        ("vocabulary", "architecture.vocabulary_size", shape.vocabulary_size),
        ("parameters", "parameter_count", manifest.parameter_count),
    ] {
        page.found(name, field, value.map(|value| value.to_string()).as_deref());
    }
    if !shape.components.is_empty() {
        page.line("components", &shape.components.join(", "));
    }
    let quantization = &manifest.quantization;
    let mut words: Vec<String> = quantization.label.iter().cloned().collect();
    if quantization.from_name {
        words.push("by its name alone".to_owned());
    }
    words.extend(quantization.method.iter().map(|method| format!("method {method}")));
    words.extend(quantization.mode.iter().map(|mode| format!("mode {mode}")));
    words.extend(quantization.group_size.map(|size| format!("groups of {size}")));
    words.extend(quantization.overrides.filter(|n| *n > 0).map(|n| format!("{n} layers otherwise")));
    words.extend(quantization.bits_per_weight.map(|bits| format!("{bits} bits per weight")));
    page.found(
        "quantization",
        "quantization.label",
        (!words.is_empty()).then(|| words.join(", ")).as_deref(),
    );
    page.found("precision", "precision", manifest.precision.as_deref());
    let adapter = &manifest.adapter;
    let mut words = vec![adapter.kind.word().to_owned()];
    words.extend(adapter.method.clone());
    words.extend(adapter.rank.map(|rank| format!("rank {rank}")));
    words.extend(adapter.scale.map(|scale| format!("scale {scale}")));
    words.extend(adapter.base.as_ref().map(|base| format!("of {base}")));
    words.extend((!adapter.keys.is_empty()).then(|| format!("on {}", adapter.keys.join(", "))));
    words.extend(adapter.comparison.as_ref().map(|comparison| comparison.summary.clone()));
    page.found("adapter", "adapter.kind", Some(&words.join(", ")));
    let storage = &manifest.storage;
    if storage.present {
        page.line("files", &storage.file_count.to_string());
        page.line("size", &format!("{} ({} bytes)", bytes(storage.size_bytes), storage.size_bytes));
        let frees = reclaim(storage.reclaimable_bytes, storage.reclaimable_at_least);
        page.line("removing it frees", &format!("{frees} ({} bytes)", storage.reclaimable_bytes));
        if let Some(used) = storage.last_used.or(storage.last_accessed) {
            let by = storage.last_used_by.unwrap_or_default().describe();
            page.line("last used", &format!("{} ago, by {by}", age(Some(used), context.now)));
        }
    } else {
        page.line("files", "gone; this record is what is left");
    }
    page.line("tags", &manifest.tags.join(", "));
    page.line("notes", manifest.notes.as_deref().unwrap_or_default());
    if manifest.pinned {
        page.line("pinned", "yes");
    }
    page.line("health", manifest.health.status.word());
    for problem in &manifest.health.problems {
        let mark = if problem.severity == Severity::Info { "note" } else { "problem" };
        let path = problem.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
        page.line(mark, &format!("{}: {path}{}", problem.kind, problem.message));
    }
    if let Some(verification) = &manifest.verification {
        verified(&mut page, verification, context);
    }
    if let Some(integrity) = &manifest.integrity {
        contents(&mut page, integrity, context);
    }
    page.line("manifest", &row.path.display().to_string());
    page.text
}

/// What the newest verification found.
fn verified(page: &mut Page<'_>, found: &Verification, context: &Context) {
    let ago = age(Some(found.verified_at), context.now);
    let stale = if found.stale { "; the files are others now: verify it again" } else { "" };
    page.line("verified", &format!("{} {}, {ago} ago{stale}", found.level.word(), found.verdict.word()));
    for note in found.reason.iter().chain(&found.instead).chain(&found.notes) {
        page.line("", note);
    }
    let with: Vec<&str> =
        [&found.dtype, &found.device, &found.blas].into_iter().flatten().map(String::as_str).collect();
    let with = with.join(", ");
    let speeds = [
        ("reads", found.prompt_tps, found.prompt_spread),
        ("generates", found.generation_tps, found.generation_spread),
    ];
    for (name, tps, spread) in speeds {
        let Some(tps) = tps else { continue };
        let spread = spread
            .map(|s| {
                format!(
                    ", {} to {} in {} of {} tokens",
                    rate(Some(s.min)),
                    rate(Some(s.max)),
                    s.trials,
                    s.tokens
                )
            })
            .unwrap_or_default();
        page.line(name, &format!("{} tokens/s ({with}{spread})", rate(Some(tps))));
    }
    page.line("peak memory", &found.peak_memory_bytes.map(bytes).unwrap_or_default());
    if let Some(answers) = &found.answers {
        page.line("answers", &super::verify::answers(answers));
    }
    page.line("says", found.text.as_deref().unwrap_or_default());
}

/// What the newest verification of the contents found.
fn contents(page: &mut Page<'_>, found: &Verification, context: &Context) {
    let ago = age(Some(found.verified_at), context.now);
    let stale = if found.stale { "; the files are others now: verify it again" } else { "" };
    page.line("integrity", &format!("{}, {ago} ago{stale}", found.verdict.word()));
    for note in found.reason.iter().chain(&found.notes) {
        page.line("", note);
    }
}

struct Page<'a> {
    text: String,
    manifest: &'a Manifest,
}

impl Page<'_> {
    fn line(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text.push_str(&format!("{name:<18} {}\n", plain(value)));
        }
    }

    fn found(&mut self, name: &str, field: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        match self.manifest.evidence.get(field) {
            Some(evidence) => {
                let key = evidence.key.as_ref().map(|key| format!(": {key}")).unwrap_or_default();
                // A snapshot's own place is long, and stands above.
                let file = if evidence.file == self.manifest.key { "" } else { evidence.file.as_str() };
                let said = format!("{file}{key}");
                self.line(name, &format!("{value}  [{}]", said.trim_start_matches(": ")));
            }
            None => self.line(name, value),
        }
    }
}
