//! What is verified, by its name or its place, and what its structure says before anything is loaded.

use super::*;

#[test]
fn broken_structure_is_not_loaded() {
    let bench = Bench::new(&["ok", "cut", "shard"]);
    cut(&bench.folder.path("cut").join("model.safetensors"), 1000);
    bench.model("shard", &four_bit(7).shards(3));
    let dir = bench.folder.path("shard");
    fs_err::remove_file(dir.join("model.safetensors")).expect("the other weights go");
    fs_err::remove_file(dir.join("model-00002-of-00003.safetensors")).expect("a shard goes");
    let json = bench.json(&[], 1);
    let broken = result(&json, "cut");
    assert_eq!((&broken["verdict"], &broken["level"]), (&json!("fail"), &json!("structure")));
    assert!(reason(broken).contains("model.safetensors"), "{broken:#}");
    assert!(reason(result(&json, "shard")).contains("model-00002-of-00003"), "{json:#}");
    assert_eq!(bench.requests().len(), 1);
}

#[test]
fn what_has_a_files_name_and_is_none_fails() {
    let pipe = |path: &Path| {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o644.into()).expect("a pipe");
    };
    let socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
    let dir = |path: &Path| fs_err::create_dir(path).expect("a directory");
    let other = |path: &Path| pipe(&path.with_file_name("control"));
    type Put<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &str, Put<'_>, &str); 8] = [
        ("a", "config.json", &pipe, "a pipe"),
        ("b", "config.json", &socket, "a socket"),
        ("c", "config.json", &dir, "a directory"),
        ("d", "model.safetensors", &pipe, "a pipe"),
        ("e", "model.safetensors", &dir, "a directory"),
        ("f", "model-more.safetensors", &pipe, "a pipe"),
        ("g", "tokenizer.json", &pipe, "a pipe"),
        // A server's own is no part of the model.
        ("h", "more.txt", &other, ""),
    ];
    let bench = Bench::new(&cases.map(|(name, ..)| name));
    for (name, file, put, _) in cases {
        let path = bench.folder.path(name).join(file);
        let _ = fs_err::remove_file(&path);
        put(&path);
    }
    let json = bench.json(&["--timeout", "20"], 1);
    let folder = bench.folder.root().to_owned();
    for (name, file, _, what) in cases {
        let alone = bench.one(&[folder.join(name).to_str().expect("UTF-8")], i32::from(!what.is_empty()));
        for row in [result(&json, name), &alone] {
            if what.is_empty() {
                assert_eq!((&row["verdict"], &row["level"]), (&json!("pass"), &json!("generate")), "{row:#}");
                continue;
            }
            assert_eq!((&row["verdict"], &row["level"]), (&json!("fail"), &json!("structure")), "{row:#}");
            assert!(reason(row).contains(file) && reason(row).contains(what), "{row:#}");
        }
    }
}

#[test]
fn a_number_that_is_none_fails_where_the_family_needs_it() {
    let bench = Bench::new(&["a-ok", "b-ok", "c-ok"]);
    for (name, key) in [("a-ok", "\"initializer_range\": [0.0, Infinity]"), ("b-ok", "\"rms_norm_eps\": NaN")]
    {
        let path = bench.folder.path(name).join("config.json");
        let mut config: Value =
            serde_json::from_slice(&fs_err::read(&path).expect("a config")).expect("JSON");
        let _ = config.as_object_mut().expect("an object").remove("rms_norm_eps");
        let text = config.to_string().replacen('{', &format!("{{{key}, "), 1);
        fs_err::write(&path, text).expect("written");
    }
    let path = bench.folder.path("c-ok").join("config.json");
    let text = fs_err::read_to_string(&path).expect("a config");
    fs_err::write(&path, format!("{text} Infinity")).expect("written");
    let json = bench.json(&[], 1);
    assert_eq!(result(&json, "a-ok")["verdict"], "pass", "{json:#}");
    for (name, words) in [("b-ok", ["rms_norm_eps", "NaN"]), ("c-ok", ["config.json", "JSON"])] {
        let row = result(&json, name);
        assert_eq!((&row["verdict"], &row["level"]), (&json!("fail"), &json!("structure")), "{row:#}");
        assert!(words.iter().all(|word| reason(row).contains(word)), "{row:#}");
    }
}

#[test]
fn what_is_no_language_model_is_loaded_and_says_so() {
    let bench = Bench::new(&["image", "unknown"]);
    let _ = bench.folder.model("pickle", &pytorch(1));
    let json = bench.json(&[], 0);
    for name in ["image", "unknown"] {
        let row = result(&json, name);
        assert_eq!((&row["verdict"], &row["level"]), (&json!("pass"), &json!("load")), "{row:#}");
        assert!(row["instead"].as_str().is_some_and(|text| text.contains("tensors were read")), "{row:#}");
    }
    let row = result(&json, "pickle");
    assert_eq!((&row["verdict"], &row["level"]), (&json!("pass"), &json!("structure")), "{row:#}");
    assert_eq!(result(&bench.json(&["unknown", "--level", "generate"], 0), "unknown")["verdict"], "pass");
    let row = bench.one(&["unknown", "--strict"], 1);
    assert!(row["verdict"] == "fail" && reason(&row).contains("hyperllama"), "{row:#}");
}

#[test]
fn a_directory_is_as_good_as_a_name() {
    let bench = Bench::new(&["ok"]);
    let row = bench.one(&[&bench.folder.path("ok").to_string_lossy()], 0);
    assert_eq!(row["model"], "ok");
    assert!(row["store"].is_string(), "{row:#}");
    // One that lies in no store.
    let other = FolderStore::create(bench.lab.sandbox.work());
    let dir = other.model("elsewhere", &four_bit(3).files());
    for path in [dir.to_str().expect("UTF-8"), "./elsewhere", "elsewhere"] {
        let row = bench.one(&[path], 0);
        assert_eq!(
            (&row["model"], &row["verdict"], &row["store"]),
            (&json!("elsewhere"), &json!("pass"), &Value::Null)
        );
    }
    assert!(!names(&bench.lab.list()).contains("elsewhere"), "it does not become a model of the registry");
    // A snapshot in a hub cache that nobody named, by its own directory.
    let hub = mlxman_testkit::HubStore::create(bench.lab.sandbox.root().join("other-hub"));
    let snapshot = hub.repo("acme/far").snapshot(&four_bit(4).files()).with_ref("main");
    let row = bench.one(&[snapshot.path().to_str().expect("UTF-8")], 0);
    assert_eq!((&row["model"], &row["verdict"]), (&json!("acme/far"), &json!("pass")), "{row:#}");
    let _ = bench.verify(&["/nowhere/at/all"]).expect_code(2);
    let _ = bench.verify(&["nobody"]).expect_code(2);
}

#[test]
fn a_directory_without_a_model_is_a_row() {
    let bench = Bench::new(&["ok"]);
    let work = bench.lab.sandbox.work();
    let dir = |name: &str| {
        let dir = work.join(name);
        fs_err::create_dir_all(&dir).expect("a directory");
        dir
    };
    let _ = dir("empty");
    let bare = FolderStore::create(&work).model("bare", &four_bit(3).files());
    fs_err::remove_file(bare.join("config.json")).expect("the config goes");
    let odd = FolderStore::create(&work).model("odd", &four_bit(3).files());
    fs_err::remove_file(odd.join("config.json")).expect("the config goes");
    fs_err::create_dir(odd.join("config.json")).expect("a directory");
    let _ = FolderStore::create(dir("several")).model("inner", &four_bit(3).files());
    let json = bench.json(&["./empty", "ok", "./bare", "./odd", "./several"], 1);
    let rows = json["results"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(names, ["empty", "ok", "bare", "odd", "several"]);
    assert_eq!(rows[1]["verdict"], "pass", "{json:#}");
    for (name, words) in [
        ("empty", ["neither a config.json", "name the directory"]),
        ("bare", ["model.safetensors", "no config.json"]),
        ("odd", ["config.json is a directory", "download"]),
        ("several", ["1 model below it", "inner"]),
    ] {
        let row = result(&json, name);
        assert_eq!((&row["verdict"], &row["level"]), (&json!("fail"), &json!("structure")), "{row:#}");
        assert_eq!(row["path"], work.canonicalize().expect("a path").join(name).to_str().expect("UTF-8"));
        assert!(words.iter().all(|word| reason(row).contains(word)), "{row:#}");
    }
    assert_eq!(bench.history().len(), 5);
    let out = bench.verify(&["./empty"]).expect_code(1);
    assert!(out.stdout.contains("empty") && out.stderr.contains("1 model: 0 passed, 1 failed"), "{out}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_may_have_a_name_that_is_no_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let bench = Bench::new(&["ok"]);
    // Outside of all stores, and inside of one.
    for root in [bench.lab.sandbox.work(), bench.folder.root().to_owned()] {
        let dir = root.join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
        mlxman_testkit::write_files(&dir, &four_bit(3).files());
        let args =
            ["verify".as_ref(), "--json".as_ref(), "--timeout".as_ref(), "20".as_ref(), dir.as_os_str()];
        let row = bench.lab.run(args).success().json()["results"][0].clone();
        assert_eq!((&row["verdict"], &row["level"]), (&json!("pass"), &json!("generate")), "{row:#}");
        assert_eq!(row["model"], "odd-\u{fffd}");
        let asked = bench.requests().pop().expect("a request");
        assert_eq!(asked["model"], json!(dir.as_os_str().as_bytes()));
    }
    // By its name alone, and where there is none.
    let args = [std::ffi::OsStr::new("verify"), std::ffi::OsStr::from_bytes(b"odd-\xff")];
    let _ = bench.lab.run(args).success();
    let _ = bench.lab.run([args[0], std::ffi::OsStr::from_bytes(b"\xff")]).expect_code(2);
}

#[test]
fn a_model_that_is_named_twice_is_verified_once() {
    let bench = Bench::new(&["a-ok", "b-ok"]);
    let snapshot = bench.lab.hub.repo("acme/far").snapshot(&four_bit(4).files()).with_ref("main");
    let other = FolderStore::create(bench.lab.sandbox.work());
    let dir = other.model("elsewhere", &four_bit(3).files());
    std::os::unix::fs::symlink(&dir, bench.lab.sandbox.work().join("also")).expect("a link");
    let [path, far] =
        [bench.folder.path("a-ok"), snapshot.path()].map(|path| path.to_str().expect("UTF-8").to_owned());
    let args = ["a-ok", "b-ok", &path, "A-OK", "acme/far", &far, "./elsewhere", "elsewhere", "./also"];
    let json = bench.json(&args, 0);
    let rows = json["results"].as_array().expect("rows").iter();
    let names: Vec<&str> = rows.filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(
        names,
        ["a-ok", "b-ok", "acme/far", "elsewhere"],
        "in the order in which they were named first"
    );
    assert_eq!((bench.requests().len(), bench.history().len()), (4, 4));
}
