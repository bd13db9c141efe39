//! What cannot be had again once it is gone. Nobody is asked over the network: where the files and the manifest leave a
//! doubt, it counts as irreplaceable.

use mlxman_manifest::AdapterKind;
use mlxman_manifest::registry::SurveyedModel;
use mlxman_store::{FoundModel, Scan};

/// Tags by which a user says that a repo cannot be reached any more, or never could by others.
const TAGS: [&str; 5] = ["private", "gone", "deleted", "irreplaceable", "local-only"];

/// A file that was written this much later than its download was recorded is another one: huggingface_hub allows as much.
const SLACK_SECONDS: f64 = 1.0;

/// Why a model cannot be had again, if that is so as far as anybody can tell.
pub(crate) fn irreplaceable(scan: &Scan, found: &FoundModel, known: &SurveyedModel) -> Option<String> {
    let summary = &known.summary;
    if found.files.is_empty() {
        return None;
    }
    if known.invalid.is_some() {
        return Some("its manifest cannot be read, so nobody can tell where it came from".to_owned());
    }
    if let Some(tag) = summary.tags.iter().find(|tag| TAGS.iter().any(|one| tag.eq_ignore_ascii_case(one))) {
        return Some(format!("it is tagged `{tag}`"));
    }
    if found.repo.is_some() {
        return put_into_snapshot(found);
    }
    if summary.fused == Some(true) || summary.adapter == AdapterKind::Fused {
        return Some("an adapter is fused into its weights, and no repo is known to have that".to_owned());
    }
    let Some(repo) = &summary.repo_id else {
        return Some(
            match (summary.adapter, &summary.quantization_method) {
                (AdapterKind::Adapter, _) => {
                    "it is an adapter of which no repo is known: it was perhaps trained here"
                }
                (_, Some(_)) => "no repo is known that it came from: it was perhaps quantized here",
                _ => "no repo is known that it came from",
            }
            .to_owned(),
        );
    };
    differs_from_download(scan, found).map(|why| format!("{why}, so {repo} may not have it"))
}

/// A file that lies in a snapshot itself was put there by somebody: the hub's own lie among the blobs.
fn put_into_snapshot(found: &FoundModel) -> Option<String> {
    let own = found.files.iter().find(|file| file.link.is_none() && file.blob.is_none())?;
    Some(format!("`{}` lies in the snapshot itself, where no download puts it", own.path.escape_debug()))
}

/// What of a folder is not, or no longer, what a download of a commit left there.
fn differs_from_download(scan: &Scan, found: &FoundModel) -> Option<String> {
    let details = scan.details(found);
    let Some(download) = &details.download else {
        return Some("no download of it is on record".to_owned());
    };
    if download.commit().is_none() {
        return Some("its files come from several commits".to_owned());
    }
    for file in &found.files {
        let name = file.path.escape_debug();
        let Some(record) = download.files.get(&file.path) else {
            return Some(format!("`{name}` is in no record of its download"));
        };
        let written = file.stat.mtime_ns as f64 / 1e9;
        if record.timestamp.is_none_or(|recorded| written > recorded + SLACK_SECONDS) {
            return Some(format!("`{name}` was written after it was downloaded"));
        }
        let listed = details.listing.as_ref().map(|listing| listing.files.get(&file.path));
        if listed.is_some_and(|listed| listed.is_none_or(|listed| listed.size != file.stat.size)) {
            return Some(format!("`{name}` is not as long as the repo's listing says"));
        }
    }
    None
}
