//! Hub caches, as huggingface_hub 2 writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::files::{symlink, write};
use crate::hash::{git_sha1, lfs_pointer_sha1, sha1_hex, sha256_hex, xet_hash};

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag created by huggingface_hub.\n\
    # For information about cache directory tags, see:\n\
    #\thttps://bford.info/cachedir/\n";

/// The contents of `CACHEDIR.TAG`.
pub(crate) const fn cachedir_tag() -> &'static str {
    TAG
}

/// What a repo of the Hub holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Model,
    Dataset,
    Space,
}

/// Whether the Hub would keep this file in LFS: weights, and whatever has a mebibyte or more.
pub fn is_lfs(path: &str, size: usize) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".gguf") || path.ends_with(".bin") || size >= 1 << 20
}

/// The name of a file's blob: its SHA-256 if it is in LFS, else its git SHA-1.
pub fn etag(path: &str, bytes: &[u8]) -> String {
    if is_lfs(path, bytes.len()) { sha256_hex(bytes) } else { git_sha1(bytes) }
}

/// A tree listing, as the library's `trees/<commit>.json`.
pub(crate) fn tree_json(files: &[(String, Vec<u8>)]) -> String {
    let sorted: BTreeMap<&str, &Vec<u8>> = files.iter().map(|(path, bytes)| (path.as_str(), bytes)).collect();
    let mut out = String::from("{\n \"format_version\": 1,\n \"files\": {");
    for (index, (path, bytes)) in sorted.into_iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        let size = bytes.len();
        out.push_str(&format!("  {}: {{\n   \"size\": {size},\n", json!(path)));
        if is_lfs(path, size) {
            let sha256 = sha256_hex(bytes);
            let blob = lfs_pointer_sha1(&sha256, size as u64);
            out.push_str(&format!(
                "   \"blob_id\": \"{blob}\",\n   \"lfs_sha256\": \"{sha256}\",\n   \"lfs_size\": {size},\n   \
                 \"xet_hash\": \"{}\"\n  }}",
                xet_hash(bytes)
            ));
        } else {
            out.push_str(&format!("   \"blob_id\": \"{}\"\n  }}", git_sha1(bytes)));
        }
    }
    out.push_str(if files.is_empty() { "}\n}" } else { "\n }\n}" });
    out
}

/// A commit's name, made from the repo's name and the listing.
pub(crate) fn commit_of(id: &str, files: &[(String, Vec<u8>)]) -> String {
    sha1_hex(format!("{id}\n{}", tree_json(files)).as_bytes())
}

/// A hub cache.
#[derive(Clone, Debug)]
pub struct HubStore {
    root: PathBuf,
    shared: bool,
    locks: bool,
    trees: bool,
}

impl HubStore {
    /// Makes an empty cache at `root`, or opens the one that is there.
    pub fn create(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        write(&root.join("CACHEDIR.TAG"), TAG.as_bytes());
        Self { root, shared: false, locks: true, trees: true }
    }

    /// From here on, payload of LFS files goes to the cache's shared blob store.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        write(&self.root.join("blobs/.huggingface-shared-blobs"), b"1\n");
        self
    }

    /// From here on, no lock files are left.
    #[must_use]
    pub const fn without_locks(mut self) -> Self {
        self.locks = false;
        self
    }

    /// From here on, no tree listings are written, as before version 1.10 of the library.
    #[must_use]
    pub const fn without_trees(mut self) -> Self {
        self.trees = false;
        self
    }

    /// The cache's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The model repo `id`, such as `org/name`.
    pub fn repo(&self, id: &str) -> Repo {
        self.repo_of(Kind::Model, id)
    }

    /// The dataset repo `id`.
    pub fn dataset(&self, id: &str) -> Repo {
        self.repo_of(Kind::Dataset, id)
    }

    /// The space repo `id`.
    pub fn space(&self, id: &str) -> Repo {
        self.repo_of(Kind::Space, id)
    }

    /// The repo `id` of this kind.
    pub fn repo_of(&self, kind: Kind, id: &str) -> Repo {
        let prefix = match kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
            Kind::Space => "spaces",
        };
        let folder = format!("{prefix}--{}", id.replace('/', "--"));
        Repo { hub: self.clone(), id: id.to_owned(), folder }
    }
}

/// A repo in a [`HubStore`]. Nothing is written before the first snapshot, blob or ref.
#[derive(Clone, Debug)]
pub struct Repo {
    hub: HubStore,
    id: String,
    folder: String,
}

impl Repo {
    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.hub.root.join(&self.folder)
    }

    /// Its directory's name.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The directory of its blobs.
    pub fn blobs(&self) -> PathBuf {
        self.path().join("blobs")
    }

    /// The blob of this name.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.blobs().join(etag)
    }

    /// The lock file of this blob.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.hub.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"))
    }

    /// The directory of this commit's snapshot.
    pub fn snapshot_path(&self, commit: &str) -> PathBuf {
        self.path().join("snapshots").join(commit)
    }

    /// Adds a snapshot of these files, under a commit made from the repo's name and the files. Blobs that are there
    /// are used again. It has no ref before [`Snapshot::with_ref`].
    pub fn snapshot(&self, files: &[(String, Vec<u8>)]) -> Snapshot {
        self.snapshot_at(&commit_of(&self.id, files), files)
    }

    /// The same under a commit of your choice.
    pub fn snapshot_at(&self, commit: &str, files: &[(String, Vec<u8>)]) -> Snapshot {
        self.snapshot_some(commit, files, |_| true)
    }

    /// The same, with a listing of all files, of which only those that `wanted` picks were downloaded.
    pub fn snapshot_some(
        &self,
        commit: &str,
        files: &[(String, Vec<u8>)],
        wanted: impl Fn(&str) -> bool,
    ) -> Snapshot {
        let path = self.snapshot_path(commit);
        fs_err::create_dir_all(&path).expect("the snapshot's directory can be made");
        for (file, bytes) in files.iter().filter(|(file, _)| wanted(file)) {
            let etag = self.add_blob(file, bytes);
            let up = "../".repeat(file.matches('/').count() + 2);
            let link = path.join(file);
            if link.symlink_metadata().is_err() {
                symlink(Path::new(&format!("{up}blobs/{etag}")), &link);
            }
        }
        if self.hub.trees {
            write(&self.path().join(format!("trees/{commit}.json")), tree_json(files).as_bytes());
        }
        Snapshot { repo: self.clone(), commit: commit.to_owned() }
    }

    /// Writes a file's blob, unless it is there, and returns its name.
    fn add_blob(&self, file: &str, bytes: &[u8]) -> String {
        let etag = etag(file, bytes);
        if self.hub.locks {
            write(&self.lock(&etag), b"");
        }
        let blob = self.blob(&etag);
        if blob.symlink_metadata().is_ok() {
            return etag;
        }
        if self.hub.shared && is_lfs(file, bytes.len()) {
            self.share(&etag, bytes);
        } else {
            write(&blob, bytes);
        }
        etag
    }

    /// Puts a blob into the shared store, with a link to it and a line in its list of users.
    fn share(&self, etag: &str, bytes: &[u8]) {
        let hash = xet_hash(bytes);
        let payload = self.hub.root.join("blobs").join(&hash[..2]).join(&hash);
        if !payload.exists() {
            write(&payload, bytes);
            write(&payload.with_file_name(format!("{hash}.lock")), b"");
        }
        let list = payload.with_file_name(format!("{hash}.refs"));
        let mut lines = if list.exists() {
            fs_err::read_to_string(&list).expect("the list of users can be read")
        } else {
            String::new()
        };
        lines.push_str(&format!("{}/blobs/{etag}\n", self.folder));
        write(&list, lines.as_bytes());
        symlink(Path::new(&format!("../../blobs/{}/{hash}", &hash[..2])), &self.blob(etag));
    }

    /// Adds a ref; `name` may have slashes, as `refs/pr/1`.
    pub fn add_ref(&self, name: &str, commit: &str) {
        write(&self.path().join("refs").join(name), commit.as_bytes());
    }

    /// Adds a blob that no snapshot links to, and returns its path.
    pub fn orphan(&self, bytes: &[u8]) -> PathBuf {
        self.blob(&self.add_blob("orphan.safetensors", bytes))
    }

    /// Adds what an interrupted download leaves, `blobs/<etag>.<id>.incomplete`, and returns its path. `id` has eight
    /// hexadecimal digits.
    pub fn partial(&self, etag: &str, id: &str, bytes: &[u8]) -> PathBuf {
        if self.hub.locks {
            write(&self.lock(etag), b"");
        }
        let path = self.blobs().join(format!("{etag}.{id}.incomplete"));
        write(&path, bytes);
        path
    }

    /// Records that this commit has no such file.
    pub fn no_exist(&self, commit: &str, file: &str) {
        write(&self.path().join(".no_exist").join(commit).join(file), b"");
    }
}

/// A snapshot in a [`Repo`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    repo: Repo,
    /// Its commit: 40 hexadecimal digits.
    pub commit: String,
}

impl Snapshot {
    /// Points a ref at it.
    #[must_use]
    pub fn with_ref(self, name: &str) -> Self {
        self.repo.add_ref(name, &self.commit);
        self
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.repo.snapshot_path(&self.commit)
    }

    /// The repo it is in.
    pub const fn repo(&self) -> &Repo {
        &self.repo
    }

    /// What the link of this file resolves to: the blob with the bytes.
    pub fn blob_of(&self, file: &str) -> PathBuf {
        fs_err::canonicalize(self.path().join(file)).expect("the link resolves")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::text;
    use crate::models::ModelSpec;
    use serde_json::Value;

    fn temp() -> (tempfile::TempDir, HubStore) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hub = HubStore::create(dir.path().join("hub"));
        (dir, hub)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut out: Vec<String> = fs_err::read_dir(dir)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        out.sort();
        out
    }

    #[test]
    fn a_snapshot_is_laid_out_like_the_library_does() {
        let (_dir, hub) = temp();
        let files = ModelSpec::llama().files();
        let snapshot = hub.repo("org/name").snapshot(&files).with_ref("main");
        let repo = snapshot.repo();
        assert_eq!(names(hub.root()), [".locks", "CACHEDIR.TAG", "models--org--name"]);
        assert_eq!(names(&repo.path()), ["blobs", "refs", "snapshots", "trees"]);
        assert_eq!(fs_err::read(repo.path().join("refs/main")).expect("the ref"), snapshot.commit.as_bytes());
        assert_eq!(snapshot.commit.len(), 40);
        for (path, bytes) in &files {
            let target = fs_err::read_link(snapshot.path().join(path)).expect("a link");
            let etag = etag(path, bytes);
            assert_eq!(target.to_string_lossy(), format!("../../blobs/{etag}"));
            assert_eq!(etag.len(), if path.ends_with(".safetensors") { 64 } else { 40 });
            assert_eq!(&fs_err::read(snapshot.path().join(path)).expect("the blob"), bytes);
            assert!(repo.lock(&etag).exists());
        }
    }

    #[test]
    fn the_listing_is_that_of_the_library() {
        let files = vec![text("b/c.json", "{}"), ("a.safetensors".to_owned(), b"x".to_vec())];
        let sha = sha256_hex(b"x");
        let expected = format!(
            "{{\n \"format_version\": 1,\n \"files\": {{\n  \"a.safetensors\": {{\n   \"size\": 1,\n   \"blob_id\": \
             \"{}\",\n   \"lfs_sha256\": \"{sha}\",\n   \"lfs_size\": 1,\n   \"xet_hash\": \"{}\"\n  }},\n  \
             \"b/c.json\": {{\n   \"size\": 2,\n   \"blob_id\": \"{}\"\n  }}\n }}\n}}",
            lfs_pointer_sha1(&sha, 1),
            xet_hash(b"x"),
            git_sha1(b"{}"),
        );
        assert_eq!(tree_json(&files), expected);
        let value: Value = serde_json::from_str(&expected).expect("JSON");
        assert_eq!(value["files"]["a.safetensors"]["lfs_size"], 1);
    }

    #[test]
    fn snapshots_share_blobs_and_folders_go_deeper() {
        let (_dir, hub) = temp();
        let repo = hub.repo("org/name");
        let old = repo.snapshot(&[text("a/b/c.txt", "same"), text("d.txt", "old")]);
        let new = repo.snapshot(&[text("a/b/c.txt", "same"), text("d.txt", "new")]).with_ref("main");
        assert_ne!(old.commit, new.commit);
        assert_eq!(names(&repo.blobs()).len(), 3);
        assert_eq!(old.blob_of("a/b/c.txt"), new.blob_of("a/b/c.txt"));
        let link = fs_err::read_link(old.path().join("a/b/c.txt")).expect("a link");
        assert!(link.starts_with("../../../../blobs"));
    }

    #[test]
    fn a_shared_payload_lists_its_users() {
        let (_dir, hub) = temp();
        let hub = hub.shared();
        let files = vec![("model.safetensors".to_owned(), b"weights".to_vec()), text("config.json", "{}")];
        let one = hub.repo("a/one").snapshot(&files).with_ref("main");
        let two = hub.repo("b/two").snapshot(&files).with_ref("main");
        assert_eq!(one.blob_of("model.safetensors"), two.blob_of("model.safetensors"));
        assert_ne!(one.blob_of("config.json"), two.blob_of("config.json"));
        let payload = one.blob_of("model.safetensors");
        let hash = xet_hash(b"weights");
        assert_eq!(
            payload,
            fs_err::canonicalize(hub.root()).expect("the root").join("blobs").join(&hash[..2]).join(&hash)
        );
        let sha = sha256_hex(b"weights");
        assert_eq!(
            fs_err::read_to_string(payload.with_extension("refs")).expect("the list"),
            format!("models--a--one/blobs/{sha}\nmodels--b--two/blobs/{sha}\n")
        );
        let link = fs_err::read_link(one.repo().blob(&sha)).expect("a link");
        assert_eq!(link.to_string_lossy(), format!("../../blobs/{}/{hash}", &hash[..2]));
    }

    #[test]
    fn part_of_a_snapshot_has_the_whole_listing() {
        let (_dir, hub) = temp();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let files = ModelSpec::llama().files();
        let snapshot = hub.repo("org/name").snapshot_some(commit, &files, |path| path == "config.json");
        assert_eq!(names(&snapshot.path()), ["config.json"]);
        let tree = fs_err::read_to_string(snapshot.repo().path().join(format!("trees/{commit}.json")))
            .expect("a tree");
        assert_eq!(tree, tree_json(&files));
    }
}
