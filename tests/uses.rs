//! When models were used: what is recorded, what is not, what becomes of a log that is damaged; and `mlxman run`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fs_err::os::unix::fs::symlink;
use mlxman_testkit::Snapshot;
use serde_json::{Value, json};

use crate::lab::{DAY, Lab, four_bit, model, names, old_below};

/// A cache whose models nobody read for a hundred days.
fn unused() -> (Lab, Snapshot) {
    let lab = Lab::new();
    let one = lab.hub.repo("acme/one").snapshot(&four_bit(1).files()).with_ref("main");
    let _ = lab.hub.repo("acme/two").snapshot(&four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync();
    (lab, one)
}

fn log_file(lab: &Lab) -> PathBuf {
    lab.sandbox.mlxman_home().join("uses.jsonl")
}

fn log(lab: &Lab) -> Vec<Value> {
    let text = fs_err::read_to_string(log_file(lab)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn by(lab: &Lab, name: &str) -> Value {
    model(&lab.list(), name)["storage"]["last_used_by"].clone()
}

#[test]
fn path_records_a_use_and_looking_does_not() {
    let (lab, one) = unused();
    for args in [
        &["list"][..],
        &["show", "acme/one"],
        &["sync"],
        &["clean", "preview"],
        &["clean", "preview", "--models", "*", "--older-than", "30d"],
        &["clean", "preview", "--explain", "acme/one"],
        &["stores"],
        &["verify", "--level", "structure"],
    ] {
        let _ = lab.run(args).success();
    }
    assert_eq!(log(&lab), [json!(null); 0], "mlxman's own reading is no use");
    assert_eq!(names(&lab.json(["list", "--filter", "used>90d"])).len(), 2);
    assert_eq!(by(&lab, "acme/one"), "file_times");
    let _ = lab.run(["path", "acme/one"]).success();
    let lines = log(&lab);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["by"], "path");
    assert_eq!(lines[0]["store"], format!("hub={}", lab.hub.root().display()));
    assert_eq!(lines[0]["key"], format!("models--acme--one/snapshots/{}", one.commit));
    assert_eq!(names(&lab.json(["list", "--filter", "used>90d"])), ["acme/two".to_owned()].into());
    assert_eq!(names(&lab.json(["list", "--filter", "used<1d"])), ["acme/one".to_owned()].into());
    assert_eq!((by(&lab, "acme/one"), by(&lab, "acme/two")), (json!("log"), json!("file_times")));
    assert!(lab.run(["show", "acme/one"]).success().stdout.contains("ago, by the usage log"));
    assert!(lab.run(["show", "acme/two"]).success().stdout.contains("3mo ago, by file times"));
    assert!(lab.run(["list"]).success().stdout.contains("~3mo"));
    // It outlives a sync, and stands in no manifest.
    lab.sync();
    assert_eq!(by(&lab, "acme/one"), "log");
    for manifest in lab.manifests().values() {
        assert!(manifest["storage"].get("last_used").is_none(), "{manifest:#}");
    }
    // The log counts, and not who else read the files.
    let recent = fs_err::read_to_string(log_file(&lab)).expect("the log");
    let time = lines[0]["time"].as_str().expect("a time");
    fs_err::write(log_file(&lab), recent.replace(time, "2020-01-01T00:00:00Z")).expect("a log");
    assert_eq!(by(&lab, "acme/one"), "file_times", "written since: it is another one");
}

#[test]
fn a_damaged_log_is_read_as_far_as_it_can_be() {
    let (lab, one) = unused();
    let _ = lab.run(["path", "acme/one"]).success();
    let good = fs_err::read(log_file(&lab)).expect("the log");
    let mut bytes = b"\0\xff\xfe\nnull\n{\"time\": 5}\n[[[[\n".to_vec();
    bytes.extend(std::iter::repeat_n(b'[', 100_000));
    bytes.push(b'\n');
    bytes.extend_from_slice(&good);
    bytes.extend_from_slice(b"{\"time\":\"2026-01-01T00:00:00Z\",\"store\":\"hub=");
    fs_err::write(log_file(&lab), &bytes).expect("a log");
    assert_eq!(by(&lab, "acme/one"), "log");
    // What comes after the unfinished line is a line of its own.
    let _ = lab.run(["path", "acme/two"]).success();
    assert_eq!(by(&lab, "acme/two"), "log");
    // A long one is written anew, with the newest use of each alone.
    let line = format!(
        "{{\"time\":\"2020-01-01T00:00:00Z\",\"store\":\"hub={}\",\"key\":\"models--acme--one/snapshots/{}\",\"by\":\"x\"}}\n",
        lab.hub.root().display(),
        one.commit
    );
    bytes.push(b'\n');
    bytes.extend(line.repeat((1 << 20) / line.len() + 1).bytes());
    fs_err::write(log_file(&lab), &bytes).expect("a log");
    let _ = lab.run(["path", "acme/two"]).success();
    assert_eq!(log(&lab).len(), 2, "one line for each");
    assert_eq!((by(&lab, "acme/one"), by(&lab, "acme/two")), (json!("log"), json!("log")));
    // Something else in its place is neither read nor written through.
    fs_err::remove_file(log_file(&lab)).expect("it goes");
    let theirs = lab.sandbox.root().join("theirs");
    fs_err::write(&theirs, "x").expect("a file");
    symlink(&theirs, log_file(&lab)).expect("a link");
    let out = lab.run(["clean", "preview", "--older-than", "30d"]).expect_code(3);
    assert!(out.stderr.contains("uses.jsonl"), "{out}");
    assert_eq!(fs_err::read_to_string(&theirs).expect("it is there"), "x");
}

#[test]
fn eight_at_once_lose_no_use() {
    let lab = Lab::new();
    let count = 8;
    for number in 0..count {
        let _ = lab.hub.repo(&format!("acme/m{number}")).snapshot(&four_bit(number).files()).with_ref("main");
    }
    lab.sync();
    // So long that every one of them wants to write it anew.
    let line = "{\"time\":\"2020-01-01T00:00:00Z\",\"store\":\"hub=/x\",\"key\":\"k\",\"by\":\"x\"}\n";
    fs_err::write(log_file(&lab), line.repeat((1 << 20) / line.len() + 2)).expect("a log");
    for _ in 0..3 {
        let children: Vec<_> =
            (0..count).map(|number| lab.spawn(&["path", &format!("acme/m{number}")])).collect();
        for mut child in children {
            assert!(child.wait().expect("it ends").success());
        }
        let text = fs_err::read_to_string(log_file(&lab)).expect("the log");
        for number in 0..count {
            assert!(text.contains(&format!("models--acme--m{number}/")), "{number}");
        }
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "whole lines");
    }
}

/// What a shell sees of `mlxman run`.
fn run(lab: &Lab, words: &[&str]) -> std::process::Output {
    let mut command: Command = lab.command(&["run", "acme/one", "--"]);
    command.args(words).output().expect("it runs")
}

#[test]
fn a_command_runs_with_the_model_offline() {
    let (lab, one) = unused();
    let path = one.path().canonicalize().expect("it is there").display().to_string();
    let script = "printf '%s|' \"$HF_HUB_OFFLINE\" \"$MLXMAN_MODEL_PATH\" \"$@\"; cat; exit 7";
    let out = run(&lab, &["sh", "-c", script, "sh", "--model={}", "a{}b{}", "{ }"]);
    assert_eq!(out.status.code(), Some(7));
    let said = String::from_utf8(out.stdout).expect("text");
    assert_eq!(said, format!("1|{path}|--model={path}|a{path}b{path}|{{ }}|"));
    assert_eq!(log(&lab)[0]["by"], "run");
    assert_eq!(by(&lab, "acme/one"), "log");
    for code in [0, 1, 2, 255] {
        assert_eq!(run(&lab, &["sh", "-c", &format!("exit {code}")]).status.code(), Some(code));
    }
    let out = run(&lab, &["no-such-command-anywhere"]);
    assert_eq!(out.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&out.stderr).contains("no-such-command-anywhere"));
    assert_eq!(run(&lab, &["/"]).status.code(), Some(126));
    let out = lab.run(["run", "acme/on", "--", "true"]).expect_code(2);
    assert!(out.stderr.contains("acme/one"), "{out}");
    let _ = lab.run(["run", "acme/one"]).expect_code(2);
    let _ = lab.run(["run", "--", "true"]).expect_code(2);
}

#[test]
fn a_signal_ends_the_command_and_is_seen() {
    use std::os::unix::process::ExitStatusExt as _;
    let (lab, _) = unused();
    assert_eq!(run(&lab, &["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    // A shell around it says 128 and the signal.
    let mut shell = lab.sandbox.command("sh");
    let script = format!("{} run acme/one -- sh -c 'kill -INT $$'; echo $?", crate::lab::BIN);
    let out = shell.args(["-c", &script]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "130");
    // One that is sent to mlxman reaches the command.
    let mut child = lab.spawn(&["run", "acme/one", "--", "sleep", "600"]);
    let comm = format!("/proc/{}/comm", child.id());
    if cfg!(target_os = "linux") {
        for _ in 0..600 {
            if fs_err::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep") {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(fs_err::read_to_string(&comm).expect("it runs").trim(), "sleep", "it took mlxman's place");
    }
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    );
    assert_eq!(child.wait().expect("it ends").signal(), Some(15));
}
