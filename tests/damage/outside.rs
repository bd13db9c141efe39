//! Links and names that lead out of a store: nothing there is read.

use super::*;

/// A file with a secret outside of the store, whose reading would show.
pub(crate) fn secret(lab: &Lab) -> PathBuf {
    let path = lab.sandbox.root().join("outside/secret.safetensors");
    write_files(path.parent().expect("a parent"), &four_bit(77).files());
    fs_err::write(&path, "TOP-SECRET-WORDS").expect("the secret");
    path
}

#[track_caller]
fn check_outside(ward: &Ward, outside: &Path) -> Value {
    let dir = outside.parent().expect("a parent");
    let frozen = Frozen::of(dir);
    let broken = ward.check_model("link_outside_store", "damaged");
    // Its times of last access too: nothing opened it.
    frozen.assert_same(dir, "everything");
    for args in [
        &["list", "--json"][..],
        &["show", BROKEN, "--json"],
        &["clean", "preview", "--models", "*", "--json"],
    ] {
        let out = ward.lab.run(args);
        assert!(!out.stdout.contains("TOP-SECRET") && !out.stderr.contains("TOP-SECRET"), "{out}");
    }
    let plan = ward.lab.preview(&["--models", BROKEN]);
    for item in plan["candidates"][0]["items"].as_array().into_iter().flatten() {
        let path = item["path"].as_str().expect("a path");
        assert!(!path.starts_with('/') && !path.contains(".."), "{path} is no path in the store");
    }
    broken
}

#[test]
fn an_absolute_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let link = ward.broken().path().join("model.safetensors");
    fs_err::remove_file(&link).expect("the link goes");
    symlink(&secret, &link).expect("another link");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_relative_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let snapshot = ward.broken();
    let link = snapshot.path().join("config.json");
    fs_err::remove_file(&link).expect("the link goes");
    let depth = snapshot.path().components().count() - ward.lab.sandbox.root().components().count();
    let target = format!("{}outside/secret.safetensors", "../".repeat(depth));
    symlink(&target, &link).expect("another link");
    assert!(link.exists(), "{target} leads somewhere");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_directory_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    symlink(secret.parent().expect("a directory"), ward.broken().path().join("more")).expect("a link");
    let _ = check_outside(&ward, &secret);
}

#[test]
fn a_blob_that_is_itself_a_link_out_of_the_store() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let blob = weights(&ward.broken());
    fs_err::remove_file(&blob).expect("the blob goes");
    symlink(&secret, &blob).expect("a link");
    let dir = secret.parent().expect("a directory");
    let frozen = Frozen::of(dir);
    let list = ward.check();
    frozen.assert_same(dir, "everything");
    assert_eq!(model(&list, BROKEN)["health"]["status"], "damaged");
    let found = kinds(model(&list, BROKEN));
    assert!(
        found.iter().any(|kind| kind == "link_outside_store" || kind == "link_not_followed"),
        "{found:?}"
    );
}

#[test]
fn a_blobs_directory_that_is_a_link_out_of_the_store() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    let blobs = snapshot.repo().blobs();
    let outside = ward.lab.sandbox.root().join("outside-blobs");
    fs_err::rename(&blobs, &outside).expect("the blobs move");
    symlink(&outside, &blobs).expect("a link");
    let frozen = Frozen::of(&outside);
    let list = ward.check();
    frozen.assert_same(&outside, "everything");
    assert_ne!(model(&list, BROKEN)["health"]["status"], "complete");
}

#[test]
fn a_repo_directory_that_is_a_link_out_of_the_store() {
    let ward = Ward::new();
    let repo = ward.broken().repo().path();
    let outside = ward.lab.sandbox.root().join("outside-repo");
    fs_err::rename(&repo, &outside).expect("the repo moves");
    symlink(&outside, &repo).expect("a link");
    let frozen = Frozen::of(&outside);
    let list = ward.check();
    frozen.assert_same(&outside, "everything");
    let told = |kind| anywhere(&list, kind).iter().any(|path| path.ends_with("models--acme--broken-4bit"));
    assert!(told("link_outside_store") || told("link_not_followed"), "{:?}", loose(&list));
}

#[test]
fn a_repo_name_with_dots() {
    let ward = Ward::new();
    let victim = ward.lab.sandbox.root().join("home/.cache/huggingface/x");
    write_files(&victim, &four_bit(9).files());
    let frozen = Frozen::of(&victim);
    let odd = ward.hub().root().join("models--..--x");
    let good = ward.hub().repo("acme/for-a-moment").snapshot(&four_bit(5).files()).with_ref("main");
    fs_err::rename(good.repo().path(), &odd).expect("the repo gets an evil name");
    let list = ward.check();
    let found = anywhere(&list, "unsafe_name");
    assert_eq!(found.len(), 1, "{list:#}");
    assert!(found[0].contains(".."), "{found:?}");
    frozen.assert_same(&victim, "everything");
    for name in names(&list) {
        assert!(!name.split('/').any(|part| part == ".."), "{name}");
    }
    for (path, _) in ward.lab.manifests() {
        assert!(path.starts_with(ward.lab.sandbox.mlxman_home().join("manifests")), "{}", path.display());
    }
    assert!(candidates(&ward.lab.preview(&[])).iter().all(|row| !row.contains("..")));
}

#[test]
fn an_index_that_names_a_file_outside() {
    for outside in ["../../../../../outside/secret.safetensors", "/outside/secret.safetensors", ".."] {
        let ward = Ward::new();
        let secret = secret(&ward.lab);
        let mut files = four_bit(3).files();
        let index =
            json!({"metadata": {}, "weight_map": {"a.weight": "model.safetensors", "b.weight": outside}});
        replace(&mut files, "model.safetensors.index.json", index.to_string());
        let _ = ward.broken_of(&files);
        let frozen = Frozen::of(secret.parent().expect("a directory"));
        let broken = ward.check_model("unsafe_name", "damaged");
        frozen.assert_same(secret.parent().expect("a directory"), "everything");
        assert!(!broken.to_string().contains("TOP-SECRET"));
    }
}

#[test]
fn a_listing_that_names_a_file_outside() {
    let ward = Ward::new();
    let secret = secret(&ward.lab);
    let snapshot = ward.broken();
    let tree = snapshot.repo().path().join(format!("trees/{}.json", snapshot.commit));
    let mut value: Value = serde_json::from_slice(&fs_err::read(&tree).expect("a tree")).expect("JSON");
    value["files"]["../../../../../outside/secret.safetensors"] =
        json!({"size": 16, "blob_id": "ab".repeat(20)});
    fs_err::write(&tree, value.to_string()).expect("the tree");
    let dir = secret.parent().expect("a directory");
    let frozen = Frozen::of(dir);
    ward.lab.sync_any();
    frozen.assert_same(dir, "sync");
    let list = ward.lab.list();
    let files = model(&list, BROKEN)["storage"]["files"].as_array().expect("files").clone();
    assert!(files.iter().all(|file| !file["path"].as_str().expect("a path").contains("..")), "{files:?}");
}
