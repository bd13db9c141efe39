//! The policies of `clean preview`: what each names and why, what keeps it, and that budgets are met with as little as
//! can be. Nothing is deleted here.

mod budgets;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mlxman_testkit::{HubStore, ModelSpec, Quant, Snapshot, sha256_hex, text};
use serde_json::{Value, json};

use crate::lab::{DAY, Lab, candidates, four_bit, model, old, old_below};
use crate::registry::assert_valid;

fn names<const N: usize>(of: [&str; N]) -> BTreeSet<String> {
    of.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn row<'a>(plan: &'a Value, model: &str) -> &'a Value {
    let rows = plan["candidates"].as_array().expect("rows");
    rows.iter().find(|row| row["model"] == model).unwrap_or_else(|| panic!("no row of {model}: {plan:#}"))
}

/// The rule that keeps something.
fn kept(plan: &Value, model: &str) -> String {
    let rows = plan["kept"].as_array().expect("kept").iter().filter(|row| row["model"] == model);
    rows.map(|row| row["rule"].as_str().expect("a rule")).collect::<Vec<_>>().join(" ")
}

/// The text that says why.
fn why(plan: &Value, model: &str) -> String {
    let rows = plan["kept"].as_array().expect("kept").iter().filter(|row| row["model"] == model);
    rows.map(|row| row["reason"].as_str().expect("words")).collect::<Vec<_>>().join(" ")
}

fn total(plan: &Value) -> u64 {
    plan["total_reclaimable_bytes"].as_u64().expect("bytes")
}

fn used(lab: &Lab) -> u64 {
    let stores = lab.json(["stores"]);
    stores
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["usage"]["allocated_bytes"].as_u64().expect("bytes"))
        .sum()
}

/// A short name of a snapshot that no ref names.
fn at(repo: &str, snapshot: &Snapshot) -> String {
    format!("{repo}@{}", &snapshot.commit[..8])
}

/// Makes a snapshot's own blobs and directories so old.
fn age(snapshot: &Snapshot, age: Duration) {
    for file in ["config.json", "model.safetensors", "tokenizer.json", "README.md"] {
        if let Ok(blob) = snapshot.path().join(file).canonicalize() {
            old(&blob, age);
        }
    }
    old(&snapshot.path(), age);
}

/// Three repos, last used 200, 100 and 20 days ago.
fn three() -> Lab {
    let lab = Lab::new();
    for (seed, days) in [(1, 200), (2, 100), (3, 20)] {
        let name = format!("acme/m{days}");
        let _ = lab.hub.repo(&name).snapshot(&four_bit(seed).files()).with_ref("main");
        old_below(&lab.hub.repo(&name).path(), days * DAY);
    }
    lab.sync();
    lab
}

#[test]
fn keep_last_keeps_the_most_recent_of_each_repo() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/many");
    let made: Vec<Snapshot> = (0..4).map(|seed| repo.snapshot(&four_bit(seed).files())).collect();
    repo.add_ref("main", &made[0].commit);
    old_below(lab.hub.root(), 100 * DAY);
    for (index, days) in [100, 90, 80, 70].into_iter().enumerate() {
        age(&made[index], days * DAY);
    }
    lab.sync();
    // `main` comes first although it is the oldest.
    let plan = lab.preview(&["--keep-last", "1"]);
    assert_valid(&lab, "plan", &plan);
    assert_eq!(candidates(&plan), made[1..].iter().map(|one| at("acme/many", one)).collect());
    let of = row(&plan, &at("acme/many", &made[1]));
    assert_eq!((&of["rule"], &of["irreplaceable"]), (&json!("keep_last"), &json!(false)));
    assert!(of["reason"].as_str().expect("words").contains("--keep-last 1"), "{of}");
    let plan = lab.preview(&["--keep-last", "2"]);
    assert_eq!(candidates(&plan), [&made[1], &made[2]].map(|one| at("acme/many", one)).into());
    assert_eq!(candidates(&lab.preview(&["--keep-last", "4"])), names([]));
    // What it keeps, no other policy names.
    let plan = lab.preview(&["--keep-last", "2", "--older-than", "30d"]);
    assert_eq!(candidates(&plan), [&made[1], &made[2]].map(|one| at("acme/many", one)).into());
    assert_eq!(kept(&plan, "acme/many"), "keep_last");
    let both = row(&plan, &at("acme/many", &made[1]));
    assert_eq!(both["reasons"].as_array().map(Vec::len), Some(2), "each policy is a reason: {both}");
    // One that is not whole does not count.
    fs_err::remove_file(made[0].path().join("model.safetensors")).expect("it goes");
    let plan = lab.preview(&["--keep-last", "1"]);
    assert!(!candidates(&plan).contains(&at("acme/many", &made[3])), "the newest whole one: {plan:#}");
    assert!(!candidates(&plan).contains("acme/many"));
    let _ = lab.run(["clean", "preview", "--keep-last", "0"]).expect_code(2);
    let _ = lab.run(["clean", "preview", "--keep-last", "some"]).expect_code(2);
}

#[test]
fn keep_last_keeps_what_nothing_newer_has() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/many");
    let mut more = four_bit(1).files();
    more.push(("extra.safetensors".to_owned(), vec![1; 9000]));
    let older = repo.snapshot(&more);
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    let plan = lab.preview(&["--keep-last", "1"]);
    assert_eq!(kept(&plan, &at("acme/many", &older)), "not_replaced", "{plan:#}");
}

#[test]
fn older_than_goes_by_the_log_and_says_so() {
    let lab = three();
    let plan = lab.preview(&["--older-than", "90d"]);
    // As it was given, and not in the nearest larger unit.
    assert_eq!(plan["policies_in_words"], json!(["not used for 90d"]));
    assert_eq!(candidates(&plan), names(["acme/m100", "acme/m200"]));
    let one = row(&plan, "acme/m200");
    assert_eq!((&one["rule"], &one["last_used_by"]), (&json!("older_than"), &json!("file_times")));
    assert!(one["reason"].as_str().expect("words").contains("by file times"), "{one}");
    let _ = lab.run(["path", "acme/m200"]).success();
    assert_eq!(candidates(&lab.preview(&["--older-than", "90d"])), names(["acme/m100"]));
    assert_eq!(candidates(&lab.preview(&["--older-than", "10d"])), names(["acme/m100", "acme/m20"]));
    // Filters limit what a policy names.
    let limited = lab.preview(&["--older-than", "10d", "--models", "acme/m20"]);
    assert_eq!(candidates(&limited), names(["acme/m20"]));
    for bad in ["90", "soon", "0d", ""] {
        let out = lab.run(["clean", "preview", "--older-than", bad]).expect_code(2);
        assert!(out.stderr.contains("--older-than"), "{out}");
    }
}

#[test]
fn what_is_left_over_by_kind() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/a");
    let left = repo.snapshot(&four_bit(1).files());
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let orphan = repo.orphan(&[5; 30_000]);
    let part = repo.partial(&sha256_hex(b"dead"), "0a0a0a0a", &[1; 30_000]);
    let broken = lab.hub.repo("acme/broken").snapshot(&four_bit(3).files()).with_ref("main");
    fs_err::remove_file(broken.blob_of("model.safetensors")).expect("it goes");
    let empty = lab.hub.repo("acme/empty").snapshot(&[]).with_ref("main");
    fs_err::create_dir_all(empty.path()).expect("a directory");
    fs_err::create_dir_all(lab.hub.root().join("models--acme--gone/blobs")).expect("a directory");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync_any();
    let inside = |path: &std::path::Path| {
        path.strip_prefix(lab.hub.root()).expect("in the cache").to_string_lossy().into_owned()
    };
    let of = |args: &[&str]| candidates(&lab.preview(args));
    assert_eq!(of(&["--detached"]), [at("acme/a", &left)].into());
    assert_eq!(of(&["--orphans"]).len(), 1);
    assert!(of(&["--orphans"]).contains(&inside(&orphan)), "{:?}", of(&["--orphans"]));
    assert_eq!(of(&["--partials"]), [inside(&part)].into());
    let found = of(&["--broken"]);
    assert!(found.contains("acme/broken") && found.contains("models--acme--gone"), "{found:?}");
    assert!(!found.contains("acme/a") && !found.contains(&inside(&part)), "{found:?}");
    let all = of(&["--detached", "--orphans", "--partials"]);
    assert_eq!(all.len(), 3, "{all:?}");
    // A name that nothing has is told though others match; a repo without a model is something.
    let plan = lab.preview(&["--models", "acme/a", "acme/brokn", "acme/gone"]);
    let missed: Vec<&Value> = plan["near_misses"].as_array().expect("misses").iter().collect();
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert_eq!((&missed[0]["value"], &missed[0]["near"][0]), (&json!("acme/brokn"), &json!("acme/broken")));
    // Filters limit these as well, by the repo that they lie in.
    assert_eq!(of(&["--partials", "--models", "acme/a"]).len(), 1);
    assert_eq!(of(&["--partials", "--models", "acme/broken"]), names([]));
    // One that is being written stays.
    let file = fs_err::File::create(repo.lock(&sha256_hex(b"dead"))).expect("a lock");
    file.file().lock().expect("it is held");
    let plan = lab.preview(&["--partials", "--detached", "--keep-last", "1"]);
    assert_eq!(candidates(&plan), names([]), "{plan:#}");
    assert_eq!(kept(&plan, &at("acme/a", &left)), "in_use");
}

#[test]
fn the_guards_are_asked_whatever_the_policy() {
    let lab = three();
    let blob = lab.hub.repo("acme/m200").path().join("blobs");
    let lock = lab.hub.root().join(".locks/models--acme--m100");
    let held = fs_err::read_dir(&lock).expect("locks").next().expect("one").expect("an entry").path();
    let held = fs_err::File::create(held).expect("a lock");
    held.file().lock().expect("it is held");
    let any = fs_err::read_dir(&blob).expect("blobs").next().expect("one").expect("an entry").path();
    let open = fs_err::File::open(any).expect("it is open");
    for args in [&["--older-than", "10d"][..], &["--max-size", "1kB"], &["--free", "8EB"]] {
        let out = lab.run(["clean", "preview", "--json"].iter().chain(args));
        let plan = out.json();
        assert_eq!(kept(&plan, "acme/m100"), "in_use", "{args:?}");
        if cfg!(target_os = "linux") {
            assert_eq!(kept(&plan, "acme/m200"), "in_use", "{args:?}");
            assert!(!candidates(&plan).contains("acme/m200"));
        }
        assert!(!candidates(&plan).contains("acme/m100"));
    }
    drop((held, open));
    let _ = lab.run(["pin", "acme/m100"]).success();
    let plan = lab.preview(&["--older-than", "10d"]);
    assert_eq!(kept(&plan, "acme/m100"), "pinned");
    assert_eq!(candidates(&plan), names(["acme/m20", "acme/m200"]));
}

#[test]
fn what_cannot_be_had_again_needs_to_be_asked_for() {
    let (lab, folder) = Lab::with_folder();
    folder.model("made-here", &four_bit(1).files());
    folder.model("adapter", &mlxman_testkit::mlx_adapter(&ModelSpec::llama(), "acme/base"));
    let soon = SystemTime::now() + Duration::from_secs(60);
    let files = four_bit(2).files();
    folder.local_dir("fetched", "acme/hub", &files, soon);
    folder.local_dir("changed", "acme/hub", &files, soon);
    fs_err::write(folder.path("changed/config.json"), "{\"model_type\": \"llama\"}").expect("a file");
    folder.local_dir("added", "acme/hub", &files, soon);
    fs_err::write(folder.path("added/mine.safetensors"), [1; 100]).expect("a file");
    // A cache that has the same commit says which repo it is.
    let _ = lab.hub.repo("acme/hub").snapshot(&files).with_ref("main");
    let by_hand = lab.hub.repo("acme/by-hand").snapshot(&four_bit(3).files()).with_ref("main");
    fs_err::write(by_hand.path().join("adapters.safetensors"), [1; 100]).expect("a file");
    let _ = lab.hub.repo("acme/private").snapshot(&four_bit(4).files()).with_ref("main");
    lab.sync_any();
    let _ = lab.run(["tag", "acme/private", "private"]).success();
    let plan = lab.preview(&["--models", "*"]);
    for (name, word) in [
        ("made-here", "no repo is known"),
        ("adapter", "trained here"),
        ("changed", "config.json"),
        ("added", "mine.safetensors"),
        ("acme/by-hand", "adapters.safetensors"),
        ("acme/private", "private"),
    ] {
        assert_eq!(kept(&plan, name), "irreplaceable", "{name}: {plan:#}");
        assert!(why(&plan, name).contains(word), "{name}: {}", why(&plan, name));
    }
    assert_eq!(candidates(&plan), names(["acme/hub", "fetched"]));
    assert!(plan["candidates"].as_array().expect("rows").iter().all(|row| row["irreplaceable"] == false));
    let plan = lab.preview(&["--models", "*", "--include-irreplaceable"]);
    assert_eq!(candidates(&plan).len(), 8);
    for row in plan["candidates"].as_array().expect("rows") {
        let is = !matches!(row["model"].as_str(), Some("acme/hub" | "fetched"));
        assert_eq!(
            (row["irreplaceable"] == true, row["irreplaceable_reason"].is_string()),
            (is, is),
            "{row}"
        );
    }
    let out = lab.run(["clean", "preview", "--models", "made-here", "--include-irreplaceable"]).success();
    assert!(out.stdout.contains("CANNOT BE HAD AGAIN"), "{out}");
}

#[test]
fn a_revision_that_no_ref_names_has_a_time_of_grace() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/a");
    let left = repo.snapshot(&four_bit(1).files());
    let main = repo.snapshot(&four_bit(2).files()).with_ref("main");
    let name = at("acme/a", &left);
    let refs = repo.path().join("refs/main");
    let at_age = |days: Duration| {
        old_below(lab.hub.root(), 300 * DAY);
        age(&left, days);
        old(&refs, 200 * DAY);
    };
    let hour = Duration::from_secs(3600);
    at_age(14 * DAY - hour);
    let plan = lab.preview(&["--detached"]);
    assert_eq!((candidates(&plan), kept(&plan, &name)), (names([]), "asked_for_by_commit".to_owned()));
    assert!(why(&plan, &name).contains("1 more day"), "{}", why(&plan, &name));
    at_age(14 * DAY + hour);
    for args in [&["--detached"][..], &["--keep-last", "1"], &[]] {
        assert_eq!(candidates(&lab.preview(args)), [name.clone()].into(), "{args:?}");
    }
    let plan = lab.preview(&["--detached", "--grace", "20d"]);
    assert!(why(&plan, &name).contains("6 more days"), "{plan:#}");
    // One that the refs' time does not tell from an older `main`.
    at_age(3 * DAY);
    old(&refs, DAY);
    let plan = lab.preview(&["--keep-last", "1"]);
    assert_eq!(kept(&plan, &name), "grace");
    assert!(why(&plan, &name).contains("11 more days"), "{}", why(&plan, &name));
    assert_eq!(candidates(&lab.preview(&["--detached", "--grace", "0d"])), [name.clone()].into());
    assert_eq!(candidates(&lab.preview(&["--models", &name])), [name.clone()].into(), "it can be named");
    // The log of uses counts.
    at_age(100 * DAY);
    assert_eq!(candidates(&lab.preview(&["--detached"])), [name.clone()].into());
    let _ = lab.run(["path", &name]).success();
    let plan = lab.preview(&["--detached"]);
    assert!(why(&plan, &name).contains("by the usage log"), "{plan:#}");
    assert!(why(&plan, &name).contains("14 more days"), "{plan:#}");
    drop(main);
}

#[test]
fn a_model_that_is_here_twice_goes_once() {
    let (lab, folder) = Lab::with_folder();
    let files = four_bit(1).files();
    let _ = lab.hub.repo("acme/a").snapshot(&files).with_ref("main");
    folder.local_dir("copy", "acme/a", &files, SystemTime::now() + Duration::from_secs(60));
    folder.model("bare", &files);
    folder.model("other", &four_bit(2).files());
    let mut nearly = files;
    let weights = nearly.iter_mut().find(|(path, _)| path == "model.safetensors").expect("weights");
    *weights.1.last_mut().expect("a byte") ^= 1;
    folder.model("nearly", &nearly);
    old_below(lab.sandbox.root(), 100 * DAY);
    lab.sync();
    let plan = lab.preview(&["--duplicates", "--include-irreplaceable"]);
    assert_eq!(candidates(&plan), names(["copy"]), "without hashes only a revision tells: {plan:#}");
    let of = row(&plan, "copy");
    assert_eq!(of["rule"], "duplicate");
    assert!(of["reason"].as_str().expect("words").contains("acme/a in hub="), "{of}");
    let _ = lab.run(["sync"]).success();
    let plan = lab.preview(&["--duplicates", "--include-irreplaceable"]);
    assert_eq!(candidates(&plan), names(["bare", "copy"]), "{plan:#}");
    assert!(row(&plan, "bare")["reason"].as_str().expect("words").contains("equal in every byte"));
    assert_eq!(kept(&lab.preview(&["--duplicates"]), "bare"), "irreplaceable");
    // What stands for another is taken by no budget.
    let target = format!("{}", used(&lab) - total(&plan) - 1);
    let args =
        ["clean", "preview", "--json", "--duplicates", "--models", "acme/a", "copy", "--max-size", &target];
    let plan = lab.run(args).expect_code(1).json();
    assert_eq!(
        (candidates(&plan), kept(&plan, "acme/a")),
        (names(["copy"]), "stands_for_another".to_owned())
    );
    // A pinned copy is the one that stays.
    let _ = lab.run(["pin", "copy"]).success();
    assert_eq!(candidates(&lab.preview(&["--duplicates"])), names(["acme/a"]));
}

#[test]
fn the_configuration_says_what_the_options_say() {
    let lab = three();
    let config = lab.sandbox.home().join(".config/mlxman/config.toml");
    fs_err::create_dir_all(config.parent().expect("a parent")).expect("a directory");
    let all = used(&lab);
    let size = format!("{}", all - 1);
    let same = |options: &[&str], text: &str| {
        let _ = fs_err::remove_file(&config);
        let by_options = lab.run(["clean", "preview", "--json"].iter().chain(options)).json();
        fs_err::write(&config, format!("[clean]\n{text}\n")).expect("a file");
        let by_config = lab.run(["clean", "preview", "--json"]).json();
        let parts = |plan: &Value| {
            let what = ["policies", "policies_in_words", "kept", "shortfalls", "total_reclaimable_bytes"];
            (candidates(plan), what.map(|key| plan[key].clone()))
        };
        assert_eq!(parts(&by_options), parts(&by_config), "{text}");
    };
    same(&["--older-than", "90d"], "older-than = \"90d\"");
    same(&["--max-size", &size], &format!("max-size = \"{size}\""));
    same(&["--keep-last", "1", "--older-than", "10d"], "keep-last = 1\nolder-than = \"10d\"");
    same(
        &[
            "--detached",
            "--partials",
            "--orphans",
            "--broken",
            "--duplicates",
            "--superseded",
            "--grace",
            "3d",
        ],
        "detached = true\npartials = true\norphans = true\nbroken = true\nduplicates = true\nsuperseded = true\ngrace = \"3d\"",
    );
    same(&["--free", "1B"], "free = \"1B\"");
    // An option takes the place of the configuration's, and all of those can be left out.
    fs_err::write(&config, "[clean]\nolder-than = \"90d\"\n").expect("a file");
    assert_eq!(candidates(&lab.preview(&["--older-than", "150d"])), names(["acme/m200"]));
    assert_eq!(candidates(&lab.preview(&["--no-policies"])), names([]));
    assert_eq!(candidates(&lab.preview(&["--no-policies", "--models", "acme/m20"])), names(["acme/m20"]));
    for bad in ["keep_last = 1", "include-irreplaceable = true", "older-than = 90", "older-than = \"soon\""] {
        fs_err::write(&config, format!("[clean]\n{bad}\n")).expect("a file");
        let out = lab.run(["clean", "preview"]).expect_code(2);
        assert!(out.stderr.contains("config.toml"), "{out}");
    }
    let _ = lab.run(["clean", "preview", "--older", "1d"]).expect_code(2);
}

#[test]
fn a_policy_can_be_tried_on_one_model() {
    let lab = three();
    let _ = lab.run(["pin", "acme/m100"]).success();
    let explain = |model: &str, args: &[&str]| {
        let found =
            lab.run(["clean", "preview", "--json", "--explain", model].iter().chain(args)).success().json();
        assert_valid(&lab, "explain", &found);
        found
    };
    let of = |found: &Value, policy: &str| {
        let answers = found["answers"].as_array().expect("answers");
        answers.iter().find(|answer| answer["policy"] == policy).expect("an answer").clone()
    };
    let found = explain("acme/m200", &["--older-than", "90d"]);
    assert_eq!(found["outcome"], "candidate");
    assert_eq!(of(&found, "--older-than")["names"], true);
    assert!(of(&found, "--max-size")["names"].is_null());
    assert_eq!(of(&found, "--detached")["names"], false);
    assert!(found["guards"].as_array().expect("guards").iter().all(|guard| guard["kept_by"].is_null()));
    let found = explain("acme/m100", &["--older-than", "90d", "--max-size", "1kB"]);
    assert_eq!((&found["outcome"], &found["kept_by"]), (&json!("kept"), &json!("pinned")));
    assert_eq!(of(&found, "--older-than")["kept_by"], "pinned");
    assert!(found["guards"].to_string().contains("unpin"));
    let found = explain("acme/m20", &["--older-than", "90d", "--models", "acme/m200"]);
    assert_eq!((&found["outcome"], &found["matches_filters"]), (&json!("not_named"), &json!(false)));
    let out = lab.run(["clean", "preview", "--explain", "acme/m100", "--older-than", "90d"]).success();
    assert!(out.stdout.contains("acme/m100 is kept") && out.stdout.contains("--older-than"), "{out}");
    let out = lab.run(["clean", "preview", "--explain", "acme/m10"]).expect_code(2);
    assert!(out.stderr.contains("near: acme/m100"), "{out}");
}

#[test]
fn what_one_policy_leaves_alone_another_may_name() {
    let lab = Lab::new();
    let repo = lab.hub.repo("acme/a");
    let mut more = four_bit(1).files();
    more.push(("extra.safetensors".to_owned(), vec![1; 9000]));
    let older = at("acme/a", &repo.snapshot(&more));
    let _ = repo.snapshot(&four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    let plan = lab.preview(&["--detached"]);
    assert_eq!((candidates(&plan), kept(&plan, &older)), (names([]), "not_replaced".to_owned()));
    let plan = lab.preview(&["--detached", "--older-than", "30d"]);
    assert_eq!(row(&plan, &older)["rule"], "older_than");
    assert_eq!(kept(&plan, &older), "", "it is in one list: {plan:#}");
    let most = format!("{}", used(&lab) - 1);
    let plan = lab.preview(&["--detached", "--max-size", &most]);
    let both: Vec<&Value> = plan["kept"].as_array().expect("kept").iter().collect();
    assert!(
        both.iter().all(|one| !candidates(&plan).contains(one["model"].as_str().expect("a name"))),
        "{plan:#}"
    );
}

#[test]
fn what_is_superseded_by_what_was_verified() {
    let mut lab = Lab::new();
    lab.sandbox.set("MLXMAN_WORKER", crate::verify::fake_worker());
    let eight = || ModelSpec::llama().quant(Quant::Affine { bits: 8, group: 64 }).seed(1).files();
    let _ = lab.hub.repo("acme/Tiny-4bit").snapshot(&four_bit(1).files()).with_ref("main");
    let _ = lab.hub.repo("acme/Tiny-8bit").snapshot(&eight()).with_ref("main");
    let _ = lab.hub.repo("acme/Other-4bit").snapshot(&four_bit(1).files()).with_ref("main");
    let moved = lab.hub.repo("acme/moved");
    let before = moved.snapshot(&four_bit(5).files());
    let _ = moved.snapshot(&four_bit(6).files()).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync();
    assert_eq!(candidates(&lab.preview(&["--superseded"])), names([]), "nothing was verified");
    let _ = lab.run(["verify", "acme/Tiny-8bit", "acme/moved", "--level", "structure"]).success();
    assert_eq!(candidates(&lab.preview(&["--superseded"])), names([]), "nothing was loaded");
    let _ = lab.run(["verify", "acme/Tiny-8bit", "acme/moved"]).success();
    let plan = lab.preview(&["--superseded"]);
    assert_eq!(
        candidates(&plan),
        ["acme/Tiny-4bit".to_owned(), at("acme/moved", &before)].into(),
        "{plan:#}"
    );
    let of = row(&plan, "acme/Tiny-4bit");
    assert_eq!(of["rule"], "superseded");
    assert!(of["reason"].as_str().expect("words").contains("acme/Tiny-8bit (8bit), which passed"), "{of}");
    // Generating is a use; what stands for another is taken by no budget.
    assert_eq!(model(&lab.list(), "acme/Tiny-8bit")["storage"]["last_used_by"], "log");
    let out = lab.run(["clean", "preview", "--json", "--superseded", "--max-size", "1B"]).expect_code(1);
    assert_eq!(kept(&out.json(), "acme/Tiny-8bit"), "stands_for_another");
    // Where the better one goes by itself, it stands for nothing.
    let plan = lab.preview(&["--superseded", "--older-than", "1d"]);
    assert!(row(&plan, "acme/Tiny-4bit")["reasons"].as_array().is_some(), "{plan:#}");
    // Other files than those that were verified say nothing.
    let weights = lab.hub.repo("acme/Tiny-8bit").path();
    old_below(&weights, 50 * DAY);
    assert_eq!(candidates(&lab.preview(&["--superseded", "--models", "acme/Tiny-*"])), names([]));
}

#[test]
fn a_data_set_is_no_superseded_model() {
    let lab = Lab::new();
    let data = lab.hub.dataset("acme/d");
    let _ = data.snapshot(&[text("a.csv", "1\n")]);
    let _ = data.snapshot(&[text("a.csv", "2\n")]).with_ref("main");
    old_below(lab.hub.root(), 100 * DAY);
    lab.sync_any();
    assert_eq!(candidates(&lab.preview(&["--superseded"])), names([]));
}
