//! From what is chosen to the steps of a journal.

use std::collections::HashSet;

use crate::plan::Item;
use crate::trash::{Action, Step, is_shared};

pub(super) fn push_steps(
    editor: &mlxman_store::Editor<'_>,
    steps: &mut Vec<Step>,
    rows: &[usize],
    item: &Item,
    is_own: bool,
) {
    let path = &item.path;
    let slot = steps.len();
    let payload = item.link_target.as_deref().and_then(|target| shared_payload(path, target));
    steps.push(Step { rows: rows.to_vec(), action: Action::removing(editor, item, slot, is_own) });
    if let Some(payload) = payload {
        let line = path.clone();
        steps.push(Step { rows: rows.to_vec(), action: Action::Unlist { payload, line } });
    }
}

/// The shared blob that a repo's blob leads to, as huggingface_hub links it.
fn shared_payload(path: &str, target: &str) -> Option<String> {
    let mut parts = path.split('/');
    let is_blob = parts.next().is_some_and(|repo| repo.contains("--")) && parts.next() == Some("blobs");
    let at = target.rfind("/blobs/").filter(|_| is_blob)?;
    let payload = &target[at + 1..];
    is_shared(payload).then(|| payload.to_owned())
}

/// A list that goes with its blob needs no line taken out of it.
pub(super) fn drop_needless_unlists(steps: &mut Vec<Step>) {
    let taken: HashSet<String> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Take { path, .. } if is_shared(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    steps.retain(|step| !matches!(&step.action, Action::Unlist { payload, .. } if taken.contains(payload)));
}

pub(super) fn allocated_dir(editor: &mlxman_store::Editor<'_>, action: &Action) -> u64 {
    match action {
        Action::RemoveDir { path, .. } => editor.stat(path).map_or(0, |stat| stat.allocated),
        _ => 0,
    }
}
