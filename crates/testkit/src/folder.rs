//! Folders of models.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::files::{write, write_files};
use crate::hub::{cachedir_tag, commit_of, etag, tree_json};

/// A folder whose directories are models, or publishers' directories of models.
#[derive(Clone, Debug)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// Makes an empty folder at `root`, or opens the one that is there.
    pub fn create(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        fs_err::create_dir_all(&root).expect("the folder can be made");
        Self { root }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the model `name` is, `model` or `publisher/model`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Adds a model and returns its directory.
    pub fn model(&self, name: &str, files: &[(String, Vec<u8>)]) -> PathBuf {
        let path = self.path(name);
        write_files(&path, files);
        path
    }

    /// Adds a model as `hf download REPO --local-dir DIR` leaves it at the time `when`, and returns its commit.
    pub fn local_dir(&self, name: &str, repo: &str, files: &[(String, Vec<u8>)], when: SystemTime) -> String {
        let path = self.model(name, files);
        let commit = commit_of(repo, files);
        let cache = path.join(".cache/huggingface");
        let seconds = when.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        for (file, bytes) in files {
            let metadata = format!("{commit}\n{}\n{seconds}\n", etag(file, bytes));
            write(&cache.join(format!("download/{file}.metadata")), metadata.as_bytes());
            write(&cache.join(format!("download/{file}.lock")), b"");
        }
        write(&cache.join(".gitignore"), b"*");
        write(&cache.join("CACHEDIR.TAG"), cachedir_tag().as_bytes());
        write(&cache.join(format!("trees/{commit}.json")), tree_json(files).as_bytes());
        commit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::text;
    use std::time::Duration;

    #[test]
    fn a_local_dir_remembers_where_it_came_from() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = FolderStore::create(dir.path().join("models"));
        let files = vec![text("config.json", "{}")];
        let commit =
            store.local_dir("acme/tiny", "acme/tiny", &files, UNIX_EPOCH + Duration::from_millis(1500));
        let cache = store.path("acme/tiny").join(".cache/huggingface");
        assert_eq!(
            fs_err::read_to_string(cache.join("download/config.json.metadata")).expect("the metadata"),
            format!("{commit}\n9e26dfeeb6e641a33dae4961196235bdb965b21b\n1.5\n")
        );
        assert!(cache.join(format!("trees/{commit}.json")).exists());
    }
}
