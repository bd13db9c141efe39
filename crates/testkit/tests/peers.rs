//! What the testkit writes, read by the real huggingface_hub. `cargo xtask test --peers` sets `MLXMAN_TEST_PYTHON`;
//! without it these tests pass without looking.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use mlxman_testkit::{HubStore, ModelSpec, demo_store};
use serde_json::{Value, json};

/// Runs a script with the path as its argument and parses what it prints; nothing without the library.
fn python(script: &str, path: &Path) -> Option<Value> {
    let python = std::env::var_os("MLXMAN_TEST_PYTHON")?;
    let mut command = Command::new(python);
    command.arg("-c").arg(script).arg(path).env("HF_HUB_OFFLINE", "1");
    command.env("HF_HOME", path.join("no-such-home")).env("HF_HUB_DISABLE_TELEMETRY", "1");
    let output = command.output().expect("the Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn the_library_finds_every_repo_and_no_fault() {
    let script = "import json, sys\n\
        from huggingface_hub import scan_cache_dir\n\
        info = scan_cache_dir(sys.argv[1])\n\
        print(json.dumps({'warnings': [str(w) for w in info.warnings], 'repos': {r.repo_id: \
        [[sorted(v.refs), len(v.files)] for v in sorted(r.revisions, key=lambda v: len(v.refs))] for r in info.repos}}))";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let demo = demo_store(dir.path(), SystemTime::now());
    let Some(found) = python(script, &demo.hub) else { return };
    assert_eq!(found["warnings"], json!([]));
    assert_eq!(found["repos"].as_object().expect("an object").len(), 8);
    assert_eq!(found["repos"]["mlx-community/Tiny-Llama-4bit"], json!([[[], 6], [["main"], 6]]));
}

#[test]
fn the_library_resolves_a_snapshot_from_its_listing() {
    let script = "import json, sys\n\
        from huggingface_hub import snapshot_download\n\
        from huggingface_hub._tree_cache import read_tree_cache\n\
        path = snapshot_download('acme/tiny', cache_dir=sys.argv[1], local_files_only=True)\n\
        commit = path.rsplit('/', 1)[1]\n\
        tree = read_tree_cache(f'{sys.argv[1]}/models--acme--tiny', commit)\n\
        print(json.dumps({'commit': commit, 'files': {k: v.to_json() for k, v in tree.items()}}))";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hub = HubStore::create(dir.path().join("hub"));
    let files = ModelSpec::llama().files();
    let snapshot = hub.repo("acme/tiny").snapshot(&files).with_ref("main");
    let Some(found) = python(script, hub.root()) else { return };
    assert_eq!(found["commit"], snapshot.commit);
    assert_eq!(found["files"].as_object().expect("an object").len(), files.len());
    assert_eq!(found["files"]["model.safetensors"]["lfs_size"], found["files"]["model.safetensors"]["size"]);
}

#[test]
fn the_library_counts_the_users_of_a_shared_blob() {
    let script = "import json, os, sys\n\
        from huggingface_hub import scan_cache_dir\n\
        root = sys.argv[1]\n\
        info = scan_cache_dir(root)\n\
        commit = {r.repo_id: next(iter(r.revisions)).commit_hash for r in info.repos}\n\
        payload = lambda: sorted(f for d, _, fs in os.walk(f'{root}/blobs') for f in fs if '.' not in f)\n\
        steps = [payload()]\n\
        for repo in ('a/one', 'b/two'):\n\
        \x20   scan_cache_dir(root).delete_revisions(commit[repo]).execute()\n\
        \x20   steps.append(payload())\n\
        print(json.dumps([len(step) for step in steps]))";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hub = HubStore::create(dir.path().join("hub")).shared();
    let files = ModelSpec::llama().files();
    for repo in ["a/one", "b/two"] {
        let _ = hub.repo(repo).snapshot(&files).with_ref("main");
    }
    let Some(steps) = python(script, hub.root()) else { return };
    assert_eq!(steps, json!([1, 1, 0]));
}
