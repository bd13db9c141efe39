//! Names that cannot lead out of the directory they stand in.

/// Whether `name` is a single, plain file name: not empty, `.` or `..`, with no separator (`/` or `\`) and no NUL.
///
/// A backslash is a legal character of a Unix file name, but no program that writes model stores uses one, and it is
/// a separator to anybody who later reads the same manifest on Windows.
pub fn is_safe_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

/// Whether `path` is a relative path of safe components, joined by `/`.
pub fn is_safe_relative(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_safe_component)
}

/// Resolves `target`, the text of a link that lies in directory `base` (relative to the store's root, a single `/`
/// between components, empty for the root), by text alone. Gives the path relative to the store's root, or `None` where it
/// would leave the store. Absolute targets count as inside only below `root`.
pub(crate) fn resolve(root: &str, base: &str, target: &str) -> Option<String> {
    let mut path = String::with_capacity(base.len() + target.len());
    let push = |path: &mut String, part: &str| {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    };
    let rest = if let Some(absolute) = target.strip_prefix('/') {
        let root = root.strip_prefix('/')?;
        if root.is_empty() { absolute } else { absolute.strip_prefix(root)?.strip_prefix('/')? }
    } else {
        path.push_str(base);
        target
    };
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." if path.is_empty() => return None,
            ".." => path.truncate(path.rfind('/').unwrap_or(0)),
            name => push(&mut path, name),
        }
    }
    path.shrink_to_fit();
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn components() {
        for good in ["a", "model.safetensors", "..a", "a..", "-x"] {
            assert!(is_safe_component(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0"] {
            assert!(!is_safe_component(bad), "{bad:?}");
        }
        assert!(is_safe_relative("a/b/c"));
        for bad in ["", "/a", "a//b", "a/../b", "a/"] {
            assert!(!is_safe_relative(bad), "{bad:?}");
        }
    }

    #[test]
    fn links_resolve_by_text() {
        let at = |target| resolve("/s", "r/snapshots/c", target);
        assert_eq!(at("../../blobs/b").as_deref(), Some("r/blobs/b"));
        assert_eq!(at("../../../x").as_deref(), Some("x"));
        assert_eq!(at("../../../../x"), None);
        assert_eq!(at("../../../.."), None);
        assert_eq!(at("/s/r/blobs/b").as_deref(), Some("r/blobs/b"));
        assert_eq!(at("/st/r"), None);
        assert_eq!(at("/etc/passwd"), None);
        assert_eq!(at("/s/../etc"), None);
        assert_eq!(at("./../x").as_deref(), Some("r/snapshots/x"));
    }

    proptest! {
        #[test]
        fn a_resolved_link_is_a_safe_path_inside(target in "[a./]{0,24}", base in "[ab](/[ab]){0,3}") {
            if let Some(path) = resolve("/s", &base, &target) {
                prop_assert!(is_safe_relative(&path), "{path}");
            }
        }
    }
}
