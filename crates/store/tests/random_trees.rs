//! Random trees, sane and not: a scan never fails on them, its totals are those of an independent walk, and it prices
//! removals as removing them does.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mlxman_store::{Progress, Scan, StoreKind, StoreSpec, layout_of};
use proptest::prelude::*;

/// Bytes allocated and apparent, each inode once: `du` by another program's walk.
fn du(root: &Path) -> (u64, u64) {
    let mut seen = HashSet::new();
    let mut sums = (0, 0);
    for entry in walkdir::WalkDir::new(root) {
        let meta = entry.expect("an entry").metadata().expect("its metadata");
        if meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
            sums.0 += meta.blocks() * 512;
            sums.1 += meta.len();
        }
    }
    sums
}

fn scan(kind: StoreKind, root: &Path) -> Scan {
    layout_of(kind).scan(&StoreSpec::new(kind, root), &Progress::default()).expect("the root is there")
}

/// One thing that somebody does to a directory.
#[derive(Debug, Clone)]
enum Act {
    File { at: Vec<usize>, size: usize },
    Link { at: Vec<usize>, target: String },
    HardLink { at: Vec<usize>, to: usize },
    Sparse { at: Vec<usize>, size: u64 },
}

const NAMES: [&str; 22] = [
    "models--o--n",
    "datasets--o--n",
    "models--..--x",
    "models--",
    "blobs",
    "refs",
    "snapshots",
    "trees",
    ".no_exist",
    ".locks",
    "main",
    "0123456789abcdef0123456789abcdef01234567",
    "89abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "ab",
    ".huggingface-shared-blobs",
    "model.safetensors",
    "config.json",
    "a.incomplete",
    "transformer",
    "vae",
    ".cache",
];

fn place() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..5)
}

fn act() -> impl Strategy<Value = Act> {
    let target = prop::sample::select(vec![
        "../../blobs/0123456789abcdef0123456789abcdef01234567",
        "../../../models--o--n/blobs/ab",
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "../../blobs/ab/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "model.safetensors",
        "nowhere",
    ]);
    prop_oneof![
        4 => (place(), 0usize..9000).prop_map(|(at, size)| Act::File { at, size }),
        2 => (place(), target).prop_map(|(at, target)| Act::Link { at, target: target.to_owned() }),
        1 => (place(), 0usize..8).prop_map(|(at, to)| Act::HardLink { at, to }),
        1 => (place(), 0u64..1 << 30).prop_map(|(at, size)| Act::Sparse { at, size }),
    ]
}

fn perform(root: &Path, acts: &[Act]) {
    let mut files = Vec::new();
    for act in acts {
        let (Act::File { at, .. } | Act::Link { at, .. } | Act::HardLink { at, .. } | Act::Sparse { at, .. }) =
            act;
        let path = at.iter().fold(root.to_owned(), |path, &name| path.join(NAMES[name]));
        // What cannot be done, because something is in its way, is left out.
        let Some(parent) = path.parent() else { continue };
        if fs_err::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        let done = match act {
            Act::File { size, .. } => fs_err::write(&path, vec![b'x'; *size]).is_ok(),
            Act::Link { target, .. } => fs_err::os::unix::fs::symlink(target, &path).is_ok(),
            Act::HardLink { to, .. } => {
                files.get(*to).is_some_and(|old| fs_err::hard_link(old, &path).is_ok())
            }
            Act::Sparse { size, .. } => {
                fs_err::File::create(&path).and_then(|file| file.set_len(*size)).is_ok()
            }
        };
        if done && !matches!(act, Act::Link { .. }) {
            files.push(path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn totals_are_those_of_an_independent_walk(acts in prop::collection::vec(act(), 0..40)) {
        let dir = tempfile::tempdir().expect("a directory");
        perform(dir.path(), &acts);
        for kind in [StoreKind::Hub, StoreKind::Folder] {
            let scan = scan(kind, dir.path());
            let (allocated, apparent) = du(dir.path());
            prop_assert_eq!(scan.usage().allocated_bytes, allocated, "{:?}", kind);
            prop_assert_eq!(scan.usage().apparent_bytes, apparent, "{:?}", kind);
            // No file of a model lies outside, and none is a link.
            for file in scan.models.iter().flat_map(|model| &model.files) {
                let meta = dir.path().join(&file.real).symlink_metadata().expect("the file is there");
                prop_assert!(meta.is_file());
                prop_assert_eq!((meta.dev(), meta.ino()), (file.stat.dev, file.stat.ino));
                prop_assert!(mlxman_store::is_safe_relative(&file.real));
            }
            let all = scan.ledger.reclaim(0..scan.ledger.owners());
            prop_assert!(all.bytes <= allocated);
        }
    }

    #[test]
    fn what_a_folder_s_model_frees_is_what_removing_it_frees(acts in prop::collection::vec(act(), 1..30)) {
        let dir = tempfile::tempdir().expect("a directory");
        perform(dir.path(), &acts);
        let before = scan(StoreKind::Folder, dir.path());
        let Some(model) = before.models.iter().find(|model| !model.key.is_empty() && !model.dirs.is_empty()) else {
            return Ok(());
        };
        let frees = before.ledger.reclaim([model.owner]).bytes;
        let (allocated, _) = du(dir.path());
        // The directory that holds it may itself shrink or grow by a block when an entry goes; on the filesystems that
        // tests run on, directories do not shrink.
        fs_err::remove_dir_all(before.dir_of(model)).expect("removed");
        let (left, _) = du(dir.path());
        // Strays inside it, such as partial files, are rows of their own.
        let strays: Vec<_> = before.strays.iter().filter(|stray| {
            stray.problem.path.as_deref().is_some_and(|path| path.starts_with(&format!("{}/", model.key)))
        }).filter_map(|stray| stray.owner).collect();
        let with_strays = before.ledger.reclaim(strays.into_iter().chain([model.owner])).bytes;
        prop_assert!(frees <= with_strays);
        prop_assert!(with_strays <= allocated - left, "{with_strays} > {}", allocated - left);
    }
}
