//! The command that fetches one file again.

use std::path::Path;

use mlxman_store::RepoKind;

/// Where a model's files came from.
#[derive(Debug, Clone)]
pub(super) enum Origin<'a> {
    /// A repo, into a hub cache.
    Hub { repo: &'a str, kind: RepoKind, revision: &'a str, cache: &'a Path },
    /// A repo, into a directory of its own.
    LocalDir { repo: &'a str, revision: &'a str, dir: &'a Path },
    /// Ollama's library.
    Ollama { tag: &'a str },
}

impl Origin<'_> {
    /// The command, for one file or for all of them. A blob that is there is not fetched again unless that is forced.
    pub(super) fn fetch(&self, file: Option<&str>) -> String {
        let mut words: Vec<String> = Vec::new();
        let (repo, options) = match self {
            Origin::Ollama { tag } => return format!("ollama pull {}", quoted(tag)),
            Origin::Hub { repo, kind, revision, cache } => {
                let mut options = vec!["--revision".to_owned(), quoted(revision)];
                let kind = match kind {
                    RepoKind::Dataset => Some("dataset"),
                    RepoKind::Space => Some("space"),
                    _ => None,
                };
                options.extend(kind.into_iter().flat_map(|kind| ["--repo-type".to_owned(), kind.to_owned()]));
                options.extend(["--cache-dir".to_owned(), quoted(&cache.to_string_lossy())]);
                (repo, options)
            }
            Origin::LocalDir { repo, revision, dir } => {
                let dir = quoted(&dir.to_string_lossy());
                (repo, vec!["--revision".to_owned(), quoted(revision), "--local-dir".to_owned(), dir])
            }
        };
        let names = std::iter::once(*repo).chain(file);
        // A name that begins like an option is to be none.
        let is_odd = names.clone().any(|name| name.starts_with('-'));
        let names: Vec<String> = names.map(quoted).collect();
        words.extend(["hf".to_owned(), "download".to_owned()]);
        let force = "--force-download".to_owned();
        if is_odd {
            words.extend(options.into_iter().chain([force, "--".to_owned()]).chain(names));
        } else {
            words.extend(names.into_iter().chain(options).chain([force]));
        }
        words.join(" ")
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@+,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_one_file_and_are_safe_to_paste() {
        let cache = Path::new("/data/my hub");
        let hub = |kind| Origin::Hub { repo: "acme/one", kind, revision: "abc", cache };
        assert_eq!(
            hub(RepoKind::Model).fetch(Some("model.safetensors")),
            "hf download acme/one model.safetensors --revision abc --cache-dir '/data/my hub' --force-download"
        );
        assert!(hub(RepoKind::Dataset).fetch(None).contains("acme/one --revision abc --repo-type dataset "));
        let local = Origin::LocalDir { repo: "acme/one", revision: "abc", dir: Path::new("/m/one") };
        assert_eq!(
            local.fetch(Some("a'; rm -rf $HOME;.json")),
            "hf download acme/one 'a'\\''; rm -rf $HOME;.json' --revision abc --local-dir /m/one --force-download"
        );
        assert!(local.fetch(Some("--help")).ends_with("--force-download -- acme/one --help"));
        assert_eq!(Origin::Ollama { tag: "qwen3:4b" }.fetch(Some("x")), "ollama pull qwen3:4b");
    }
}
