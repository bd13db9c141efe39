//! Names of manifest files: the same model has the same name on every run, and no two models share one.

use mlxman_store::StoreSpec;

const LONGEST: usize = 80;

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
    if let Some(revision) = revision.filter(|revision| revision.len() >= 8) {
        plain = format!("{plain}@{}", &revision[..8]);
    }
    format!("{plain}-{}.manifest.json", &hash(store, key)[..12])
}

/// The name in a models' folder that keeps its manifests beside the models: the original scripts' name for a model
/// directly in the folder, with a hash where that alone could be another model's.
pub(super) fn in_folder(spec: &StoreSpec, key: &str, name: &str) -> String {
    let plain = !key.is_empty() && !key.contains('/') && !is_hashed(key);
    if plain {
        return format!("{key}.manifest.json");
    }
    let joined = if key.is_empty() { name.replace('/', "--") } else { key.replace('/', "--") };
    format!("{joined}~{}.manifest.json", &hash(&spec.id(), key)[..8])
}

fn is_hashed(key: &str) -> bool {
    key.rsplit_once('~')
        .is_some_and(|(_, hash)| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn hash(store: &str, key: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(store.as_bytes()).update(&[0]).update(key.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlxman_store::StoreKind;

    #[test]
    fn names_do_not_collide() {
        let a = in_registry("hub=/a", "models--o--n/snapshots/1", "o/n", None);
        assert_eq!(a, in_registry("hub=/a", "models--o--n/snapshots/1", "o/n", None));
        assert_ne!(a, in_registry("hub=/b", "models--o--n/snapshots/1", "o/n", None));
        assert_ne!(a, in_registry("hub=/a", "models--o--n/snapshots/2", "o/n", None));
        for nasty in ["../../etc", "/etc/passwd", "a\0b", "", "..", "-rf", &"x".repeat(4000)] {
            let name = in_registry("hub=/a", nasty, nasty, None);
            assert!(mlxman_store::is_safe_component(&name) && name.len() < 200, "{name}");
        }
    }

    #[test]
    fn a_folder_keeps_the_original_names() {
        let spec = StoreSpec::new(StoreKind::Folder, "/no/such/models");
        assert_eq!(in_folder(&spec, "flux-dev", "flux-dev"), "flux-dev.manifest.json");
        let nested = in_folder(&spec, "org/flux", "org/flux");
        assert!(nested.starts_with("org--flux~") && nested != in_folder(&spec, "org--flux", "org--flux"));
        let odd = nested.trim_end_matches(".manifest.json").to_owned();
        assert_ne!(in_folder(&spec, &odd, &odd), nested);
    }
}
