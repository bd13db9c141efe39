//! What the system does not let this user read.

use super::*;

/// Runs a copy of the program as a user who may not read everything.
pub(crate) fn as_nobody(lab: &Lab, args: &[&str]) -> std::process::Output {
    let root = lab.sandbox.root();
    let bin = root.join("mlxman-for-all");
    if !bin.exists() {
        fs_err::copy(BIN, &bin).expect("the program can be copied");
        fs_err::set_permissions(&bin, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    }
    let mut command = lab.sandbox.command(&bin);
    if rustix::process::geteuid().is_root() {
        for dir in [root.to_path_buf(), lab.sandbox.home()] {
            fs_err::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        }
        let registry = root.join("nobody");
        fs_err::create_dir_all(&registry).expect("a registry");
        std::os::unix::fs::chown(&registry, Some(65534), Some(65534)).expect("its owner can be set");
        command.env("MLXMAN_HOME", &registry).uid(65534).gid(65534);
    }
    command.args(args);
    // Another test's child, between its fork and its exec, may still hold the copy open for writing.
    loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.expect("the program runs"),
        }
    }
}

fn check_unreadable(lab: &Lab, path: &Path) {
    let mode = path.metadata().expect("it is there").permissions().mode();
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o0)).expect("its mode can be set");
    let sync = as_nobody(lab, &["sync", "--fast"]);
    let list = as_nobody(lab, &["list", "--json"]);
    let full = as_nobody(lab, &["sync"]);
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode can be set");
    let say = |out: &std::process::Output| String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(sync.status.code(), Some(1), "{}", say(&sync));
    assert_eq!(full.status.code(), Some(1), "{}", say(&full));
    assert_eq!(list.status.code(), Some(1), "{}", say(&list));
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert!(!anywhere(&list, "unreadable").is_empty(), "{list:#}");
    for name in WELL {
        assert_eq!(model(&list, name)["health"]["status"], "complete");
    }
    let broken = list["models"].as_array().expect("models").iter();
    for model in broken.filter(|model| model["source"]["repo_id"] == BROKEN) {
        assert_ne!(model["health"]["status"], "complete");
    }
}

#[test]
fn an_unreadable_snapshot() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.path());
}

#[test]
fn an_unreadable_repo() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.repo().path());
}

#[test]
fn an_unreadable_blobs_directory() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.repo().blobs());
}

#[test]
fn an_unreadable_file() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &snapshot.blob_of("config.json"));
}

#[test]
fn unreadable_weights() {
    let ward = Ward::new();
    let snapshot = ward.broken();
    check_unreadable(&ward.lab, &weights(&snapshot));
}
