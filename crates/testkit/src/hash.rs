//! The names that the Hub gives to contents.

use sha1::Digest as _;

/// The SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

/// The SHA-1 of `bytes` in lower-case hexadecimal.
pub fn sha1_hex(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::digest(bytes))
}

/// The name git gives to a blob with these bytes.
pub fn git_sha1(bytes: &[u8]) -> String {
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()).as_bytes());
    hasher.update(bytes);
    hex(&hasher.finalize())
}

/// The git name of the LFS pointer file that stands for a file with this SHA-256 and size.
pub fn lfs_pointer_sha1(sha256: &str, size: u64) -> String {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n");
    git_sha1(pointer.as_bytes())
}

/// A stand-in for a file's Xet hash: 64 hexadecimal digits that depend on the content and differ from its SHA-256.
pub fn xet_hash(bytes: &[u8]) -> String {
    sha256_hex(format!("xet {}", sha256_hex(bytes)).as_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_git() {
        // `printf 'hello\n' | git hash-object --stdin`, and of nothing.
        assert_eq!(git_sha1(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(git_sha1(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn an_lfs_pointer_has_its_own_name() {
        let sha = "6f39eaf02f1688779c3b0a1bb8f0ffad7fc2a8fbdeef67d13fda831171291504";
        assert_eq!(lfs_pointer_sha1(sha, 209_104), "c2476c9f8e45a76175e14a2e0ccb017208807a96");
    }
}
