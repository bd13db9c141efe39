//! From what is chosen to the steps of a journal.

use std::collections::HashSet;

use crate::plan::{Item, ItemKind};
use crate::trash::{Action, Seen, Step, is_shared};

pub(super) fn push_steps(
    editor: &mlxman_store::Editor<'_>,
    steps: &mut Vec<Step>,
    rows: &[usize],
    item: &Item,
    is_own: bool,
) {
    let path = item.path.clone();
    if item.kind == ItemKind::Dir {
        // One that cannot be asked is gone, which is then told, or cannot be removed, which is told too.
        let of =
            editor.attributes(&path).unwrap_or(mlxman_store::DirAttributes { mode: 0o755, uid: 0, gid: 0 });
        let action = Action::RemoveDir { path, must: is_own, mode: of.mode, uid: of.uid, gid: of.gid };
        return steps.push(Step { rows: rows.to_vec(), action });
    }
    let seen = Seen {
        kind: item.kind,
        device: item.device,
        inode: item.inode,
        size: item.size,
        mtime_ns: item.mtime_ns,
        link_target: item.link_target.clone(),
    };
    let slot = steps.len();
    let payload = item.link_target.as_deref().and_then(|target| shared_payload(&path, target));
    steps.push(Step { rows: rows.to_vec(), action: Action::Take { path: path.clone(), slot, seen } });
    if let Some(payload) = payload {
        steps.push(Step { rows: rows.to_vec(), action: Action::Unlist { payload, line: path } });
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
