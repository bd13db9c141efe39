//! Lists of files, and writing them.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// The files of one model: paths relative to its directory, with `/`, and their bytes.
pub type Files = Vec<(String, Vec<u8>)>;

/// One entry of a [`Files`] list from text.
pub fn text(path: &str, content: &str) -> (String, Vec<u8>) {
    (path.to_owned(), content.as_bytes().to_vec())
}

/// Writes `files` under `dir`, with the directories they need.
pub fn write_files(dir: &Path, files: &[(String, Vec<u8>)]) {
    fs_err::create_dir_all(dir).expect("the directory can be made");
    for (path, bytes) in files {
        write(&dir.join(path), bytes);
    }
}

/// Sets the modification and access times of a file or directory to `age` before `now`.
pub fn set_age(path: &Path, now: SystemTime, age: Duration) {
    let time = now - age;
    let times = std::fs::FileTimes::new().set_modified(time).set_accessed(time);
    let file = fs_err::File::open(path).expect("the file can be opened");
    file.file().set_times(times).expect("the file's times can be set");
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent).expect("the parent directory can be made");
    }
    fs_err::write(path, bytes).expect("the file can be written");
}

pub(crate) fn symlink(target: &Path, link: &Path) {
    if let Some(parent) = link.parent() {
        fs_err::create_dir_all(parent).expect("the parent directory can be made");
    }
    fs_err::os::unix::fs::symlink(target, link).expect("the symbolic link can be made");
}

/// JSON with an indentation of `indent` spaces, as Python's `json.dump(…, indent=n)` writes it.
pub(crate) fn json(value: &serde_json::Value, indent: usize) -> String {
    use serde::Serialize as _;

    let spaces = " ".repeat(indent);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    let mut out = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        .expect("a JSON value can be serialised");
    String::from_utf8(out).expect("JSON is UTF-8")
}
