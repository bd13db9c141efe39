//! Filters, and the plan that `clean preview` makes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use mlxman_testkit::{ModelSpec, Quant, mflux, sha256_hex};
use serde_json::Value;

use crate::lab::{DAY, Frozen, Lab, candidates, four_bit, model, names, old, old_below};
use crate::registry::assert_valid;

/// A cache with some of everything: what may go and what may not.
fn mixed() -> Lab {
    let lab = Lab::new();
    let llama = lab.hub.repo("acme/llama-4bit");
    let _ = llama.snapshot(&four_bit(1).files());
    let _ = llama.snapshot(&four_bit(2).files()).with_ref("main");
    let eight = ModelSpec::new("qwen2").quant(Quant::Affine { bits: 8, group: 64 }).tags(&["chat", "mlx"]);
    let _ = lab.hub.repo("acme/qwen-8bit").snapshot(&eight.files()).with_ref("main");
    let _ = lab.hub.repo("acme/flux").snapshot(&mflux(3, &["flux", "image"])).with_ref("main");
    let _ = lab
        .hub
        .repo("acme/mixed")
        .snapshot(&four_bit(4).quant(Quant::Mixed { low: 4, high: 8 }).files())
        .with_ref("main");
    let _ = lab
        .hub
        .repo("acme/big")
        .snapshot(&ModelSpec::llama().hidden(512).quant(Quant::F32).files())
        .with_ref("main");
    let _ = lab.hub.dataset("acme/data").snapshot(&[mlxman_testkit::text("a.csv", "1\n")]).with_ref("main");
    // So that no time of grace holds what is left over.
    old_below(lab.hub.root(), 30 * DAY);
    let bytes = [5; 30_000];
    old(&llama.orphan(&bytes), 3 * DAY);
    old(&llama.partial(&sha256_hex(b"dead"), "0a0a0a0a", &bytes), 3 * DAY);
    lab.run(["sync", "--fast"]);
    lab
}

#[track_caller]
fn found(lab: &Lab, args: &[&str]) -> Vec<String> {
    let list = lab.json(["list"].iter().chain(args));
    let plan = lab.preview(args);
    let listed: BTreeSet<String> = names(&list);
    assert_eq!(candidates(&plan), listed, "list and preview mean the same: {args:?}");
    listed.into_iter().collect()
}

#[test]
fn filters_choose() {
    let lab = mixed();
    let detached =
        names(&lab.list()).into_iter().find(|name| name.starts_with("acme/llama-4bit@")).expect("one");
    assert_eq!(found(&lab, &["--tags", "flux"]), ["acme/flux"]);
    assert_eq!(found(&lab, &["--tags", "image", "chat"]), ["acme/flux", "acme/qwen-8bit"], "any of them");
    assert_eq!(found(&lab, &["--tags", "flux", "--quantization", "4bit"]), ["acme/flux"]);
    assert_eq!(
        found(&lab, &["--tags", "flux", "--quantization", "8bit"]),
        [""; 0],
        "all kinds of filters must match"
    );
    assert_eq!(found(&lab, &["--quantization", "8bit", "mixed-4-8bit"]), ["acme/mixed", "acme/qwen-8bit"]);
    assert_eq!(found(&lab, &["--quantization", "mixed"]), ["acme/mixed"]);
    assert_eq!(found(&lab, &["--quantization", "f32"]), ["acme/big"]);
    assert_eq!(found(&lab, &["--models", "acme/q*", "acme/f*"]), ["acme/flux", "acme/qwen-8bit"]);
    assert_eq!(found(&lab, &["--filter", "detached=true"]).len().min(1), 1);
    assert_eq!(found(&lab, &["--filter", "size>1MiB"]), ["acme/big"]);
    assert_eq!(found(&lab, &["--filter", "size > 1 MB"]), ["acme/big"]);
    assert_eq!(found(&lab, &["--filter", "arch=qwen2"]), ["acme/qwen-8bit"]);
    assert_eq!(found(&lab, &["--filter", "arch~qwen*"]), ["acme/qwen-8bit"]);
    assert_eq!(found(&lab, &["--filter", "params>=3M"]), ["acme/big"]);
    assert_eq!(found(&lab, &["--filter", "size>1KB", "--filter", "arch=qwen2"]), ["acme/qwen-8bit"]);
    assert_eq!(found(&lab, &["--filter", "modified>60d"]), [""; 0]);
    assert_eq!(found(&lab, &["--fused-only"]), [""; 0]);
    assert_eq!(found(&lab, &["--missing-only"]), [""; 0]);
    assert!(found(&lab, &["--models", "acme/llama-4bit@*"]).contains(&detached));
    assert!(found(&lab, &["--filter", "refs=main"]).contains(&"acme/flux".to_owned()));
    assert!(!found(&lab, &["--filter", "refs=main"]).contains(&detached));
    let show = lab.json(["show", "--tags", "flux", "image"]);
    assert!(show.to_string().contains("acme/flux") && !show.to_string().contains("acme/big"), "{show}");
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let lab = mixed();
    let size = model(&lab.list(), "acme/big")["storage"]["size_bytes"].as_u64().expect("bytes");
    for (unit, bytes) in [
        ("", 1.0),
        ("B", 1.0),
        ("KB", 1e3),
        ("kb", 1e3),
        ("KiB", 1024.0),
        (" MB", 1e6),
        ("MiB", 1048576.0),
        ("M", 1e6),
        ("GB", 1e9),
    ] {
        let number = size as f64 / bytes;
        for (op, factor, matches) in
            [(">", 0.9, true), (">", 1.1, false), ("<", 1.1, true), ("<", 0.9, false)]
        {
            let expr = format!(
                "size{op}{}{unit}",
                if unit.is_empty() || unit == "B" {
                    (number * factor).round().to_string()
                } else {
                    format!("{:.6}", number * factor)
                }
            );
            let found = lab.json(["list", "--models", "acme/big", "--filter", &expr]);
            assert_eq!(names(&found).len() == 1, matches, "{expr} of {size}");
        }
    }
}

#[test]
fn a_filter_that_matches_nothing_names_the_near_ones() {
    let lab = mixed();
    for (args, near) in [
        (["--tags", "flx"], "flux"),
        (["--models", "acme/qwen-8bt"], "acme/qwen-8bit"),
        (["--quantization", "9bit"], "8bit"),
    ] {
        for command in [&["list"][..], &["clean", "preview"], &["show"]] {
            let out = lab.run(command.iter().chain(&args));
            assert!(out.stderr.contains(near), "{near}: {out}");
            assert!(!out.stdout.contains("acme/"), "{out}");
        }
    }
    let _ = lab.run(["list", "--filter", "colour=red"]).expect_code(2);
    for bad in ["size>", "size>lots", ">5", "size", "used>5parsecs", "health>>1", ""] {
        let out = lab.run(["list", "--filter", bad]).expect_code(2);
        assert!(!out.stderr.is_empty());
        let _ = lab.run(["clean", "preview", "--filter", bad]).expect_code(2);
    }
    let out = lab.run(["list", "--filter", "sice>1GB"]).expect_code(2);
    assert!(out.stderr.contains("size"), "{out}");
}

#[test]
fn a_filter_without_values_is_a_wrong_call_and_never_everything() {
    let lab = mixed();
    for args in [["--tags"], ["--models"], ["--quantization"]] {
        let _ = lab.run(["clean", "preview"].iter().chain(&args)).expect_code(2);
    }
    for args in [["--models", ""], ["--tags", ""], ["--quantization", ""]] {
        let out = lab.run(["clean", "preview", "--json"].iter().chain(&args));
        assert!(
            out.code() == 2 || candidates(&out.json()).is_empty(),
            "an empty word is not every model: {out}"
        );
    }
}

#[test]
fn without_filters_only_what_is_safe_to_go() {
    let lab = mixed();
    let root = lab.hub.root().to_owned();
    let before = (Frozen::of(&root), Frozen::of(&lab.sandbox.mlxman_home()));
    let plan = lab.preview(&[]);
    before.0.assert_same(&root, "preview");
    assert!(Frozen::of(&lab.sandbox.mlxman_home()).differing(&before.1).is_empty());
    let found = candidates(&plan);
    assert_eq!(found.len(), 3, "a detached snapshot, an orphan, a dead partial: {found:?}");
    for row in plan["candidates"].as_array().expect("rows") {
        assert!(row["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{row}");
        assert_eq!(row["pinned"], false);
        assert_eq!(row["in_use"], false);
        assert!(row["reclaimable_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    }
    let sum: u64 = plan["candidates"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["reclaimable_bytes"].as_u64())
        .sum();
    assert!(plan["total_reclaimable_bytes"].as_u64().is_some_and(|total| total >= sum));
    for name in names(&lab.list()).iter().filter(|name| !name.contains('@')) {
        assert!(!found.contains(name), "{name} has a ref");
    }
    let table = lab.run(["clean", "preview"]);
    assert!(table.stdout.contains("acme/llama-4bit@"), "{table}");
}

#[test]
fn a_snapshot_asked_for_by_commit_alone_is_not_safe_to_go() {
    let lab = Lab::new();
    let _ = lab.hub.repo("acme/by-commit").snapshot(&four_bit(1).files());
    old_below(lab.hub.root(), 400 * DAY);
    lab.sync();
    assert!(candidates(&lab.preview(&[])).is_empty());
    assert_eq!(candidates(&lab.preview(&["--models", "acme/by-commit"])).len(), 1, "but it can be named");
}

#[test]
fn a_pinned_model_is_never_a_candidate() {
    let lab = mixed();
    let detached = candidates(&lab.preview(&[])).into_iter().find(|name| name.contains('@')).expect("one");
    let total = |plan: &Value| plan["total_reclaimable_bytes"].as_u64().expect("bytes");
    let before = total(&lab.preview(&[]));
    let _ = lab.run(["pin", &detached, "acme/flux"]).success();
    let plan = lab.preview(&[]);
    assert!(!candidates(&plan).contains(&detached));
    assert!(total(&plan) < before);
    for args in [
        &["--models", "*"][..],
        &["--tags", "flux"],
        &["--filter", "pinned=true"],
        &["--models", "acme/flux"],
    ] {
        let plan = lab.preview(args);
        assert!(
            !candidates(&plan).contains("acme/flux") && !candidates(&plan).contains(&detached),
            "{args:?}"
        );
        assert!(!plan["candidates"].as_array().expect("rows").iter().any(|row| row["pinned"] == true));
        assert!(plan["kept"].to_string().contains("acme/flux"), "it is told that it was kept: {plan:#}");
    }
    // A pin lasts.
    lab.run(["sync"]);
    assert!(!candidates(&lab.preview(&["--models", "*"])).contains("acme/flux"));
    assert_eq!(names(&lab.json(["list", "--filter", "pinned=true"])).len(), 2);
    let _ = lab.run(["unpin", &detached, "acme/flux"]).success();
    assert_eq!(total(&lab.preview(&[])), before);
}

#[test]
fn a_plan_in_a_file_is_the_one_that_is_printed() {
    let lab = mixed();
    let path = lab.sandbox.work().join("plan.json");
    for args in [&[][..], &["--models", "acme/*"]] {
        let out = lab.run(["clean", "preview", "--json", "--out", "plan.json"].iter().chain(args));
        let mut printed = out.json();
        let mut written: Value =
            serde_json::from_slice(&fs_err::read(&path).expect("the plan")).expect("JSON");
        assert_valid(&lab, "plan", &printed);
        assert_valid(&lab, "plan", &written);
        let later = lab.preview(args);
        assert_eq!(candidates(&later), candidates(&printed));
        for plan in [&mut printed, &mut written] {
            let map = plan.as_object_mut().expect("an object");
            map.remove("created_at");
            for store in map["stores"].as_array_mut().expect("stores") {
                store.as_object_mut().expect("an object").remove("filesystem");
            }
        }
        assert_eq!(printed, written);
    }
    let out = lab.run(["clean", "preview", "--out", "no/such/dir/plan.json"]).expect_code(3);
    assert!(out.stderr.contains("no/such/dir"), "{out}");
}

#[test]
fn a_preview_sees_the_disk_as_it_is_now() {
    let lab = mixed();
    let detached = candidates(&lab.preview(&[])).into_iter().find(|name| name.contains('@')).expect("one");
    let revision =
        model(&lab.list(), &detached)["source"]["revision"].as_str().expect("a revision").to_owned();
    // Somebody points a ref at it after the last sync.
    lab.hub.repo("acme/llama-4bit").add_ref("keep", &revision);
    assert!(!candidates(&lab.preview(&[])).iter().any(|name| name.contains('@')));
    std::thread::sleep(Duration::from_millis(5));
}

#[test]
fn shared_payloads_come_back_with_their_last_user() {
    let mut lab = Lab::new();
    lab.hub = lab.hub.shared();
    let files = four_bit(1).hidden(512).files();
    let one = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
    let _ = lab.hub.repo("acme/two").snapshot(&files).with_ref("main");
    lab.sync();
    let payload = one.blob_of("model.safetensors").metadata().expect("the payload").len();
    let total = |args: &[&str]| lab.preview(args)["total_reclaimable_bytes"].as_u64().expect("bytes");
    assert!(total(&["--models", "acme/one"]) < payload);
    assert!(total(&["--models", "acme/two"]) < payload);
    assert!(total(&["--models", "acme/*"]) > payload);
    let rows = lab.preview(&["--models", "acme/*"]);
    let sum: u64 = rows["candidates"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["reclaimable_bytes"].as_u64())
        .sum();
    assert!(sum + payload <= total(&["--models", "acme/*"]), "rows tell what they free alone");
}
