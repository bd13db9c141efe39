//! Stores that several users share: what it would take that all of them can use everything. It is told, and never done,
//! for other people's permissions are their own.

use mlxman_store::{DirHandle, Problem, ProblemKind, SharedAccess, StoreSpec};

use super::commands::quoted;

/// What keeps users from each other's files, and the commands that end it.
pub(super) fn problem(spec: &StoreSpec, root: &DirHandle) -> Option<(Problem, String)> {
    let sharing = SharedAccess::of(root).ok()?;
    if !sharing.is_shared() || sharing.closed == 0 {
        return None;
    }
    let example = match sharing.example.as_deref() {
        None | Some("") => "the store's own directory",
        Some(path) => path,
    };
    let users: Vec<String> = sharing.users.iter().map(ToString::to_string).collect();
    let message = format!(
        "several users share this store (users {}, group {}), and {} entries in it are not open to the whole group ({} first): \
         one user's downloads fail on what another one made",
        users.join(", "),
        sharing.group,
        sharing.closed,
        example.escape_debug()
    );
    let root = quoted(&spec.root().to_string_lossy());
    let group = sharing.group;
    let command = format!(
        "sudo chgrp -R {group} {root} && sudo find {root} -type d -exec chmod g+rwxs {{}} + \
         && sudo find {root} -type f -exec chmod g=u {{}} + && umask 002  # the umask for every user, in their profile"
    );
    Some((Problem::new(ProblemKind::SharedPermissions, None, message), command))
}
