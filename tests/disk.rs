//! What is said to be freed is what the filesystem got back, to the block, on filesystems that nobody else writes to.

use std::path::{Path, PathBuf};
use std::process::Command;

use mlxman_testkit::{HubStore, text};
use serde_json::Value;

use crate::lab::{BIN, DAY, Lab, four_bit, left_out, old_below};

/// In a namespace of its own: mounts what it is told at `$1`, fills it from `$2`, and runs what follows after each
/// `--`, with the free blocks of the filesystem and what was printed told as JSON lines.
const SCRIPT: &str = include_str!("disk/measure.sh");

enum Filesystem {
    Tmpfs,
    Ext4,
}

/// A hub cache in the shared layout in which two repos share a blob, one with two snapshots, with loose things.
fn fill(root: &Path) {
    let hub = HubStore::create(root).shared();
    let mut files = four_bit(1).files();
    files.extend((0..40).map(|part| text(&format!("sub/part-{part}.txt"), &"x".repeat(part * 300))));
    let mut older = files.clone();
    older.push(text("old.txt", "older"));
    let repo = hub.repo("acme/one");
    let _ = repo.snapshot_at(&"1".repeat(40), &older);
    let _ = repo.snapshot_at(&"2".repeat(40), &files).with_ref("main");
    let _ = hub.repo("acme/two").snapshot(&files).with_ref("main");
    let _ = hub.repo("kept/three").snapshot(&four_bit(3).files()).with_ref("main");
    let orphaned = hub.repo("acme/broken");
    let _ = orphaned.orphan(&[7; 100_000]);
    let _ = orphaned.partial(&"ab".repeat(32), "0123abcd", &[1; 5000]);
}

/// Free bytes before the first command and after each, and what each printed; `None` where the machine allows no mount.
fn measured(filesystem: &Filesystem, commands: &[&[&str]]) -> Option<(Vec<u64>, Vec<Value>)> {
    let lab = Lab::new();
    let template = lab.sandbox.root().join("template");
    fill(&template);
    // So that what is loose is no longer in its time of grace.
    old_below(&template, 100 * DAY);
    let mount = lab.sandbox.root().join("disk");
    fs_err::create_dir(&mount).expect("made");
    let image: PathBuf = lab.sandbox.root().join("image");
    let mut command: Command = lab.sandbox.command("unshare");
    match filesystem {
        Filesystem::Tmpfs => command.args(["--mount", "--map-root-user"]),
        // Loop devices need the real root.
        Filesystem::Ext4 => command.arg("--mount"),
    };
    command.args(["sh", "-c", SCRIPT, "measure"]);
    command.arg(match filesystem {
        Filesystem::Tmpfs => "tmpfs",
        Filesystem::Ext4 => "ext4",
    });
    command.arg(&mount).arg(&template).arg(&image).arg(BIN);
    for words in commands {
        command.arg(words.join(" "));
    }
    command.env("HF_HUB_CACHE", mount.join("hub"));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            left_out(&format!("there is no `unshare`: {error}"));
            return None;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) || err.starts_with("unshare:") {
        left_out(&format!("no filesystem can be mounted here: {}", err.trim()));
        return None;
    }
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let free = lines.iter().filter_map(Value::as_u64).collect();
    Some((free, lines.into_iter().filter(Value::is_object).collect()))
}

fn is_as_told(filesystem: &Filesystem) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no number"));
    let apply = "clean apply --models acme/* --yes --json";
    // At once.
    let Some((free, said)) = measured(filesystem, &[&[apply, "--now"]]) else { return };
    let freed = number(&said[0]["freed_bytes"]);
    assert!(freed > 200_000, "{said:#?}");
    assert_eq!(free[1] - free[0], freed, "--now: {free:?} {:#}", said[0]);
    // In two steps, of which the second is told before and after.
    let (free, said) = measured(filesystem, &[&[apply], &["trash empty --yes --json"]]).expect("as before");
    let emptied = number(&said[1]["freed_bytes"]);
    let journal = number(&said[1]["journal_bytes"]);
    assert_eq!(free[2] - free[1], emptied + journal, "trash empty: {free:?} {:#}", said[1]);
    assert_eq!(emptied, number(&said[0]["reclaimable_bytes"]), "{said:#?}");
    let both = number(&said[0]["freed_bytes"]) + emptied;
    assert_eq!(free[2] - free[0], both, "both: {free:?} {said:#?}");
    // What is safe to go, and two journals that are emptied together.
    let (free, said) = measured(
        filesystem,
        &[&["clean apply --yes --json"], &[apply], &["trash list --json"], &["trash empty --yes --json"]],
    )
    .expect("as before");
    let emptied = number(&said[3]["freed_bytes"]);
    let journals = number(&said[3]["journal_bytes"]);
    assert_eq!(free[4] - free[3], emptied + journals, "two journals: {free:?} {:#}", said[3]);
    assert_eq!(emptied, number(&said[2]["reclaimable_bytes"]), "{:#}", said[2]);
    assert!(free[4] - free[0] > freed + 100_000, "{free:?}");
}

#[test]
fn freed_is_what_a_tmpfs_got_back() {
    is_as_told(&Filesystem::Tmpfs);
}

#[test]
fn freed_is_what_an_ext4_got_back() {
    is_as_told(&Filesystem::Ext4);
}
