//! Names of manifest files: the same model has the same name on every run, and no two models share one.

const LONGEST: usize = 80;

/// A name in a models' folder is cut to so many bytes before its hash: filesystems take 255.
const LONGEST_IN_FOLDER: usize = 200;

/// The name in the registry's own directory. It begins with what a person calls the model, and ends in a hash of the
/// store and the model's place in it, so that it cannot collide, also where case does not count.
pub(super) fn in_registry(store: &str, key: &str, name: &str, revision: Option<&str>) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(LONGEST)
        .collect();
    if plain.starts_with(['.', '-']) {
        plain.replace_range(..1, "_");
    }
    if let Some(revision) = revision.filter(|revision| revision.len() >= 8 && revision.is_ascii()) {
        plain = format!("{plain}@{}", &revision[..8]);
    }
    format!("{plain}{}", end_in_registry(store, key))
}

/// Whether a file of this name in the registry's own directory can be about that model.
pub(super) fn fits_in_registry(file: &str, store: &str, key: &str) -> bool {
    file.ends_with(&end_in_registry(store, key))
}

fn end_in_registry(store: &str, key: &str) -> String {
    format!("-{}.manifest.json", &hash(&[store, key])[..12])
}

/// The name in a models' folder that keeps its manifests beside the models: the original scripts' name for a model
/// directly in the folder, with a hash where that alone could be another model's. It does not depend on where the
/// folder lies, for a volume may be mounted elsewhere tomorrow.
pub(super) fn in_folder(key: &str) -> String {
    let plain = !key.is_empty() && !key.contains('/') && !is_hashed(key) && key.len() <= LONGEST_IN_FOLDER;
    if plain {
        return format!("{key}.manifest.json");
    }
    let mut joined = if key.is_empty() { "this-folder".to_owned() } else { key.replace('/', "--") };
    while joined.len() > LONGEST_IN_FOLDER {
        joined.pop();
    }
    format!("{joined}~{}.manifest.json", &hash(&[key])[..8])
}

fn is_hashed(key: &str) -> bool {
    key.rsplit_once('~')
        .is_some_and(|(_, hash)| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hasher.update(&[0]);
        }
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_collide() {
        let a = in_registry("hub=/a", "models--o--n/snapshots/1", "o/n", None);
        assert_eq!(a, in_registry("hub=/a", "models--o--n/snapshots/1", "o/n", None));
        assert_ne!(a, in_registry("hub=/b", "models--o--n/snapshots/1", "o/n", None));
        assert_ne!(a, in_registry("hub=/a", "models--o--n/snapshots/2", "o/n", None));
        assert!(fits_in_registry(&a, "hub=/a", "models--o--n/snapshots/1"));
        assert!(!fits_in_registry(&a, "hub=/a", "models--o--n/snapshots/2"));
        assert!(!fits_in_registry("backup.manifest.json", "hub=/a", "models--o--n/snapshots/1"));
        for nasty in ["../../etc", "/etc/passwd", "a\0b", "", "..", "-rf", &"x".repeat(4000)] {
            let name = in_registry("hub=/a", nasty, nasty, None);
            assert!(mlxman_store::is_safe_component(&name) && name.len() < 200, "{name}");
        }
    }

    #[test]
    fn a_folder_keeps_the_original_names() {
        assert_eq!(in_folder("flux-dev"), "flux-dev.manifest.json");
        let nested = in_folder("org/flux");
        assert!(nested.starts_with("org--flux~") && nested != in_folder("org--flux"));
        let odd = nested.trim_end_matches(".manifest.json").to_owned();
        assert_ne!(in_folder(&odd), nested);
        let (long, longer) = ("ä".repeat(120), format!("{}b", "ä".repeat(120)));
        assert!(in_folder(&long).len() < 250 && in_folder(&long) != in_folder(&longer));
        assert!(mlxman_store::is_safe_component(&in_folder("")));
    }
}
