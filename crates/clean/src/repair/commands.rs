//! Commands that mend what cannot be mended without a network.

use std::path::Path;

use mlxman_store::{FoundModel, ProblemKind, RepoKind, StoreKind, StoreSpec};

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Where a download goes.
pub(super) struct Where<'a> {
    pub(super) store: &'a StoreSpec,
    /// The hub cache that `hf` uses by itself.
    pub(super) default_hub: Option<&'a Path>,
}

impl Where<'_> {
    /// Fetches a repo, or a file of it, into the hub cache.
    pub(super) fn fetch(
        &self,
        kind: RepoKind,
        repo: &str,
        file: Option<&str>,
        revision: Option<&str>,
        force: bool,
    ) -> Option<String> {
        let mut command = format!("hf download {}", quoted(repo));
        if let Some(file) = file {
            command = format!("{command} {}", quoted(file));
        }
        match kind {
            RepoKind::Model => {}
            RepoKind::Dataset => command.push_str(" --repo-type dataset"),
            RepoKind::Space => command.push_str(" --repo-type space"),
            // `hf` has no download of kernels.
            _ => return None,
        }
        if let Some(revision) = revision {
            command = format!("{command} --revision {}", quoted(revision));
        }
        if self.default_hub != Some(self.store.root()) {
            command = format!("{command} --cache-dir {}", quoted(&self.store.root().to_string_lossy()));
        }
        if force {
            command.push_str(" --force-download");
        }
        Some(command)
    }

    /// Fetches what a problem of a model is about.
    pub(super) fn for_model(
        &self,
        found: &FoundModel,
        kind: ProblemKind,
        path: Option<&str>,
        source: (Option<&str>, Option<&str>),
    ) -> Option<String> {
        // What is there and wrong is not fetched again without being told to.
        let force = matches!(
            kind,
            ProblemKind::ConfigInvalid
                | ProblemKind::HeaderInvalid
                | ProblemKind::GgufInvalid
                | ProblemKind::TruncatedWeights
                | ProblemKind::TrailingBytes
                | ProblemKind::SizeMismatch
                | ProblemKind::MissingTensor
                | ProblemKind::StaleIndex
        );
        let fetched = matches!(
            kind,
            ProblemKind::DanglingLink
                | ProblemKind::FlattenedLink
                | ProblemKind::LinkOutsideStore
                | ProblemKind::LinkNotFollowed
                | ProblemKind::MissingShard
                | ProblemKind::NoWeights
                | ProblemKind::MissingComponent
                | ProblemKind::MissingRequiredFile
                | ProblemKind::MissingIndex
                | ProblemKind::EmptySnapshot
        );
        if !force && !fetched {
            return None;
        }
        let whole = matches!(
            kind,
            ProblemKind::NoWeights
                | ProblemKind::MissingComponent
                | ProblemKind::MissingShard
                | ProblemKind::FlattenedLink
        );
        // A directory's, or a listing's, is no file that could be asked for.
        let file = path.filter(|path| !whole && *path != "." && mlxman_store::is_safe_relative(path));
        if let Some(repo) = &found.repo {
            let listing = found.listing.as_ref().map(|(path, _)| path.as_str());
            let file = file.filter(|file| Some(*file) != listing);
            return self.fetch(repo.kind, &repo.id, file, Some(&repo.revision), force);
        }
        // Into a folder only what came from a hub by a download that says which commit it was.
        let (Some(repo), Some(revision)) = source else { return None };
        if found.download_records.is_none() || self.store.kind() != StoreKind::Folder || found.is_file {
            return None;
        }
        let dir = self.store.root().join(&found.key);
        let file = file.map(|file| format!(" {}", quoted(file))).unwrap_or_default();
        let force = if force { " --force-download" } else { "" };
        let (repo, revision, dir) = (quoted(repo), quoted(revision), quoted(&dir.to_string_lossy()));
        Some(format!("hf download {repo}{file} --revision {revision} --local-dir {dir}{force}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("acme/one-4bit_v1.0"), "acme/one-4bit_v1.0");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm -rf $HOME"), "'it'\\''s; rm -rf $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_command_names_the_cache_that_is_not_the_default() {
        let store = StoreSpec::verbatim(StoreKind::Hub, "/data/my hub");
        let other = Where { store: &store, default_hub: Some(Path::new("/home/me/hub")) };
        let command = other.fetch(RepoKind::Dataset, "a/b", Some("x.csv"), Some("main"), false);
        let expected = "hf download a/b x.csv --repo-type dataset --revision main --cache-dir '/data/my hub'";
        assert_eq!(command.as_deref(), Some(expected));
        let own = Where { store: &store, default_hub: Some(store.root()) };
        let command = own.fetch(RepoKind::Model, "a/b", None, None, true);
        assert_eq!(command.as_deref(), Some("hf download a/b --force-download"));
    }
}
