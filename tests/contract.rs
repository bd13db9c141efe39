//! What other programs rely on: JSON, exit statuses, pipes, terminals, stores.

use std::io::Read as _;
use std::process::Stdio;

use mlxman_testkit::FolderStore;
use serde_json::{Value, json};

use crate::lab::{Lab, four_bit, model, names};
use crate::registry::assert_valid;

#[test]
fn the_names_that_others_rely_on() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/tiny");
    let snapshot = repo.snapshot(&four_bit(1).files()).with_ref("main");
    let broken = lab.hub.repo("acme/broken").snapshot(&four_bit(2).files()).with_ref("main");
    fs_err::remove_file(broken.blob_of("model.safetensors")).expect("the blob goes");
    let _ = repo.orphan(b"orphan");
    let _ = lab.run(["sync", "--fast"]).expect_code(1);
    let list = lab.run(["list", "--json"]).expect_code(1).json();
    assert!(list["schema"].is_string());
    assert_valid(&lab, "list", &list);
    let tiny = model(&list, "acme/tiny");
    assert_valid(&lab, "manifest", tiny);
    assert!(tiny["store"].as_str().is_some_and(|store| store.starts_with("hub=/")));
    assert_eq!(tiny["source"]["repo_id"], "acme/tiny");
    assert_eq!(tiny["source"]["revision"], snapshot.commit.as_str());
    assert_eq!(tiny["source"]["refs"], json!(["main"]));
    assert_eq!(tiny["quantization"]["label"], "4bit");
    assert_eq!(tiny["adapter"]["kind"], "none");
    assert!(tiny["storage"]["size_bytes"].is_u64() && tiny["storage"]["reclaimable_bytes"].is_u64());
    assert_eq!(tiny["health"]["status"], "complete");
    assert_eq!(model(&list, "acme/broken")["health"]["problems"][0]["kind"], "dangling_link");
    assert_eq!(list["problems"].as_array().map(Vec::len), Some(1), "{:#}", list["problems"]);
    assert!(list["problems"].to_string().contains("orphan_blob"));
    for time in [&tiny["generated_at"], &tiny["storage"]["last_modified"]] {
        let time = time.as_str().expect("a time");
        assert!(time.contains('T') && (time.ends_with('Z') || time.contains('+')), "{time} is RFC 3339");
    }
    let plan = lab.preview(&[]);
    assert_valid(&lab, "plan", &plan);
    let sync = lab.json(["sync", "--fast"]);
    assert_valid(&lab, "sync", &sync);
    for (path, manifest) in lab.manifests() {
        assert_valid(&lab, "manifest", &manifest);
        assert!(path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".manifest.json")));
    }
}

#[test]
fn json_everywhere() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    for args in [
        &["sync", "--fast"][..],
        &["list"],
        &["show", "acme/tiny"],
        &["path", "acme/tiny"],
        &["verify", "acme/tiny", "--level", "structure"],
        &["stores"],
        &["tag", "acme/tiny", "x"],
        &["note", "acme/tiny", "y"],
        &["pin", "acme/tiny"],
        &["unpin", "acme/tiny"],
        &["clean", "preview"],
        &["clean", "hf", "--scan"],
        &["clean", "hf", "--pattern", "acme/*"],
        &["schema", "manifest"],
    ] {
        let mut all = args.to_vec();
        all.push("--json");
        let out = lab.run(&all).success();
        let _: Value = out.json();
    }
}

#[test]
fn exit_statuses() {
    let lab = Lab::new();
    let _ = lab.run(["list"]).success();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    lab.sync();
    let _ = lab.run(["list"]).success();
    let _ = lab.run(["--help"]).success();
    let _ = lab.run(["--version"]).success();
    for args in [
        &["nonsense"][..],
        &["list", "--nonsense"],
        &["show"],
        &["show", "acme/none"],
        &["path"],
        &["tag", "acme/none", "x"],
        &["note", "acme/none", "x"],
        &["pin", "acme/none"],
        &["sync", "acme/none"],
        &["schema", "nonsense"],
        &["list", "--store", "hub"],
        &["list", "--store", "ftp=/x"],
        &["sync", "--store", "ftp=/x"],
        &["list", "--store-timeout", "soon"],
    ] {
        let out = lab.run(args);
        if args == ["list", "--store", "hub"] {
            let _ = out.success();
            continue;
        }
        let out = out.expect_code(2);
        assert!(!out.stderr.is_empty() && !out.stderr.contains("panicked"), "{out}");
        assert!(out.stdout.is_empty(), "{out}");
    }
    let out = lab.run(["show", "acme/tinny"]).expect_code(2);
    assert!(out.stderr.contains("acme/tiny"), "the near one is named: {out}");
    // A registry that can't be made.
    let mut command = lab.command(&["sync", "--fast"]);
    let file = lab.sandbox.root().join("file");
    fs_err::write(&file, "x").expect("a file");
    let out = command.env("MLXMAN_HOME", file.join("below")).output().expect("it runs");
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).contains("file/below"));
}

#[test]
fn every_command_says_its_exit_statuses() {
    let lab = Lab::new();
    for command in ["sync", "list", "show", "path", "stores", "tag", "note", "pin", "unpin"] {
        let out = lab.run([command, "--help"]).success();
        for line in ["  0  ", "  1  ", "  2  ", "  3  "] {
            assert!(out.stdout.contains(line), "{out}");
        }
    }
    let out = lab.run(["clean", "preview", "--help"]).success();
    assert!(out.stdout.contains("Exit status"), "{out}");
}

#[test]
fn no_escapes_in_a_pipe() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    let broken = lab.hub.repo("acme/broken").snapshot(&four_bit(2).files()).with_ref("main");
    fs_err::remove_file(broken.blob_of("config.json")).expect("the blob goes");
    for args in [
        &["sync"][..],
        &["list"],
        &["show", "acme/broken"],
        &["clean", "preview"],
        &["clean", "hf", "--scan"],
        &["clean", "hf", "--pattern", "acme/*"],
        &["stores"],
        &["list", "--nope"],
    ] {
        for colour in [None, Some("1")] {
            let mut command = lab.command(args);
            command.env("TERM", "xterm-256color");
            match colour {
                None => command.env_remove("NO_COLOR"),
                Some(value) => command.env("NO_COLOR", value),
            };
            let out = command.output().expect("it runs");
            assert!(!out.stdout.contains(&0x1b) && !out.stderr.contains(&0x1b), "{args:?}");
        }
    }
}

#[test]
fn a_broken_pipe_is_success() {
    let lab = Lab::new();
    for number in 0..40 {
        let _ = lab.hub.repo(&format!("acme/m{number}")).snapshot(&four_bit(number).files()).with_ref("main");
    }
    lab.sync();
    for args in [
        &["list", "--json"][..],
        &["list"],
        &["clean", "preview", "--models", "*", "--json"],
        &["show", "--models", "*"],
        &["schema", "manifest"],
        &["man"],
    ] {
        let mut child =
            lab.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut first = [0; 1];
        let mut pipe = child.stdout.take().expect("a pipe");
        let _ = pipe.read(&mut first).expect("a byte");
        drop(pipe);
        let out = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.to_lowercase().contains("broken pipe"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn quiet_prints_data_and_errors_only() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    let out = lab.run(["sync", "--quiet"]).success();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let out = lab.run(["list", "-q"]).success();
    assert!(out.stdout.contains("acme/tiny") && out.stderr.is_empty(), "{out}");
    let out = lab.run(["show", "acme/none", "-q"]).expect_code(2);
    assert!(!out.stderr.is_empty());
}

#[test]
fn a_store_that_is_not_there() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(1).files()).with_ref("main");
    let missing = lab.sandbox.root().join("ejected");
    let (here, gone) = (format!("hub={}", lab.hub.root().display()), format!("folder={}", missing.display()));
    let out = lab.run(["sync", "--fast", "--store", &gone, "--store", &here]).expect_code(1);
    assert!(out.stderr.contains(&missing.display().to_string()), "{out}");
    assert!(!missing.exists(), "it is not made");
    // `list` tells what the registry knows, and looks at no store.
    let list = lab.json(["list", "--store", &gone, "--store", &here]);
    assert_eq!(model(&list, "acme/tiny")["health"]["status"], "complete");
    let stores = lab.run(["stores", "--json", "--store", &gone, "--store", &here]).expect_code(1).json();
    assert_eq!(stores.as_array().map(Vec::len), Some(2), "{stores:#}");
    assert!(stores.to_string().contains("store_unavailable"), "{stores:#}");
    let out = lab.run(["clean", "preview", "--store", &gone, "--store", &here]).expect_code(1);
    assert!(out.stderr.contains("ejected") || out.stdout.contains("ejected"), "{out}");
    // A file where a directory should be.
    fs_err::write(&missing, "x").expect("a file");
    // With no store that could be read there was nothing to do the work on.
    for args in [&["sync", "--fast"][..], &["stores"], &["clean", "preview"]] {
        let _ = lab.run(args.iter().chain(&["--store", &gone])).expect_code(3);
    }
}

#[test]
fn stores_from_a_configuration_file() {
    let lab = Lab::new();
    let other = lab.sandbox.root().join("other");
    FolderStore::create(&other).model("from-config", &four_bit(1).files());
    let _ = lab.hub.repo("acme/tiny").snapshot(&four_bit(2).files()).with_ref("main");
    let help = lab.run(["man"]).success().stdout;
    assert!(help.contains("config.toml"), "where it is, is told");
    let dir = lab.sandbox.home().join(".config/mlxman");
    fs_err::create_dir_all(&dir).expect("a directory");
    fs_err::write(
        dir.join("config.toml"),
        format!("[[store]]\nkind = \"folder\"\npath = \"{}\"\n", other.display()),
    )
    .expect("a file");
    lab.sync();
    let found = names(&lab.list());
    assert!(found.contains("from-config"), "{found:?}");
    fs_err::write(dir.join("config.toml"), "store = 5\n").expect("a file");
    let out = lab.run(["sync", "--fast"]);
    assert!(matches!(out.code(), 2 | 3), "{out}");
    assert!(out.stderr.contains("config.toml"), "{out}");
}

#[test]
fn a_users_words() {
    let lab = Lab::new();
    let name = "acme/tiny";
    let _ = lab.hub.repo(name).snapshot(&four_bit(1).tags(&["mlx", "chat"]).files()).with_ref("main");
    lab.sync();
    let tags = || {
        let list = lab.list();
        let tags = model(&list, name)["tags"].as_array().expect("tags").clone();
        let mut tags: Vec<String> = tags.iter().map(|tag| tag.as_str().expect("a tag").to_owned()).collect();
        tags.sort();
        tags
    };
    assert_eq!(tags(), ["chat", "mlx"]);
    let _ = lab.run(["tag", name, "mine", "two words"]).success();
    assert_eq!(tags(), ["chat", "mine", "mlx", "two words"]);
    // One that was found is taken away, and stays away; one of the user's as well.
    let _ = lab.run(["tag", name, "--remove", "chat", "mine"]).success();
    assert_eq!(tags(), ["mlx", "two words"]);
    lab.hub
        .repo(name)
        .add_ref("v2", &fs_err::read_to_string(lab.hub.repo(name).path().join("refs/main")).expect("a ref"));
    let _ = lab.run(["sync"]).success();
    assert_eq!(tags(), ["mlx", "two words"]);
    let _ = lab.run(["tag", name, "chat"]).success();
    assert_eq!(tags(), ["chat", "mlx", "two words"]);
    let _ = lab.run(["tag", name, "--", "-chat"]).success();
    assert_eq!(tags(), ["mlx", "two words"]);
    assert_eq!(names(&lab.json(["list", "--tags", "two words"])).len(), 1);
    let _ = lab.run(["note", name, "line one\nline \u{1b}[31mtwo"]).success();
    assert_eq!(model(&lab.list(), name)["notes"], "line one\nline \u{1b}[31mtwo");
    let out = lab.run(["show", name]).success();
    assert!(!out.stdout.contains('\u{1b}'), "{out}");
    let _ = lab.run(["note", name, ""]).success();
    assert!(model(&lab.list(), name)["notes"].is_null());
    // By any name that it answers to.
    let commit = fs_err::read_to_string(lab.hub.repo(name).path().join("refs/main")).expect("a ref");
    let _ = lab.run(["pin", &format!("{name}@{commit}")]).success();
    assert_eq!(model(&lab.list(), name)["pinned"], true);
    let _ = lab.run(["pin", name]).success();
    let _ = lab.run(["unpin", "tiny"]).success();
    assert_ne!(model(&lab.list(), name)["pinned"], true);
}

#[test]
fn what_a_repo_says_of_itself_never_reaches_the_terminal_raw() {
    let lab = Lab::new();
    let evil = "\u{1b}]0;title\u{7}\u{1b}[2J";
    let spec = four_bit(1)
        .tags(&["mlx", &format!("\"{}\"", "a\\eb")])
        .config("model_type", json!(format!("llama{evil}")));
    let _ = lab.hub.repo("acme/evil").snapshot(&spec.files()).with_ref("main");
    lab.run(["sync", "--fast"]);
    for args in [&["list"][..], &["show", "acme/evil"], &["clean", "preview", "--models", "*"], &["sync"]] {
        let out = lab.run(args);
        assert!(!out.stdout.contains('\u{1b}') && !out.stderr.contains('\u{1b}'), "{args:?}\n{out}");
        assert!(!out.stdout.contains('\u{7}'), "{out}");
    }
}

#[test]
fn an_interrupted_sync_keeps_what_it_hashed() {
    let lab = Lab::new();
    for number in 0..6 {
        let _ = lab
            .hub
            .repo(&format!("acme/m{number}"))
            .snapshot(&four_bit(number).hidden(1024).files())
            .with_ref("main");
    }
    for wait in [0, 5, 20, 60] {
        let mut child = lab.spawn(&["sync"]);
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = child.wait().expect("it ends");
        for entry in walkdir::WalkDir::new(lab.sandbox.mlxman_home()) {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(!name.contains(".tmp"), "{name} is left half-written");
        }
    }
    let _ = lab.run(["sync"]).success();
    assert_eq!(names(&lab.list()).len(), 6);
}

#[test]
fn schemas_and_papers() {
    let lab = Lab::new();
    let names = lab.run(["schema", "--list"]).success().stdout;
    for name in names.lines() {
        let schema = lab.run(["schema", name]).success().json();
        assert!(jsonschema::validator_for(&schema).is_ok(), "{name}");
    }
    assert!(
        names.lines().any(|name| name == "manifest") && names.lines().any(|name| name == "plan"),
        "{names}"
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(lab.run(["completions", shell]).success().stdout.contains("mlxman"));
    }
    assert!(lab.run(["man"]).success().stdout.contains(".TH"));
}
