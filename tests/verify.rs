//! `mlxman verify`, with a worker that does what the model's name says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output as Raw, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mlxman_testkit::{FolderStore, ModelSpec, Output, pytorch};
use serde_json::{Value, json};

use crate::lab::{BIN, Lab, cut, four_bit, model, names};
use crate::registry::assert_valid;

/// The fake worker, built once: it belongs to another package, so cargo does not build it for these tests by itself.
pub(crate) fn fake_worker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = Path::new(BIN).parent().expect("a directory of programs");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "mlxman-testkit", "--bin", "fake-worker"]);
        cargo.args((dir.file_name() == Some("release".as_ref())).then_some("--release"));
        cargo.arg("--target-dir").arg(dir.parent().expect("cargo's directory"));
        assert!(cargo.status().is_ok_and(|status| status.success()), "{cargo:?} fails");
        dir.join("fake-worker")
    })
}

/// A lab with a folder of models and the fake worker.
struct Bench {
    lab: Lab,
    folder: FolderStore,
    log: PathBuf,
}

impl Bench {
    fn new(models: &[&str]) -> Self {
        let (mut lab, folder) = Lab::with_folder();
        let log = lab.sandbox.root().join("worker.log");
        lab.sandbox.set("MLXMAN_WORKER", fake_worker());
        lab.sandbox.set("MLXMAN_BLAS", "none");
        lab.sandbox.set("FAKE_WORKER_LOG", &log);
        let bench = Bench { lab, folder, log };
        for (at, name) in models.iter().enumerate() {
            bench.model(name, &four_bit(at as u64));
        }
        bench
    }

    fn model(&self, name: &str, spec: &ModelSpec) {
        let _ = self.folder.model(name, &spec.files());
    }

    #[track_caller]
    fn verify(&self, args: &[&str]) -> Output {
        self.lab.run(["verify"].iter().chain(args))
    }

    /// `verify --json`, with this exit code; what it prints is valid.
    #[track_caller]
    fn json(&self, args: &[&str], code: i32) -> Value {
        let out = self.lab.run(["verify", "--json"].iter().chain(args)).expect_code(code);
        let json = out.json();
        assert_valid(&self.lab, "verify", &json);
        assert_eq!(json["schema"], "mlxman-verify-1");
        json
    }

    /// The one result of verifying one model.
    #[track_caller]
    fn one(&self, args: &[&str], code: i32) -> Value {
        let json = self.json(args, code);
        assert_eq!(json["results"].as_array().map(Vec::len), Some(1), "{json:#}");
        json["results"][0].clone()
    }

    fn logged(&self) -> Vec<String> {
        fs_err::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The processes that the log names, behind this word.
    fn processes(&self, word: &str) -> Vec<u32> {
        let lines = self.logged();
        let of =
            lines.iter().filter_map(|line| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok());
        of.collect()
    }

    fn requests(&self) -> Vec<Value> {
        let lines = self.logged();
        let requests = lines.iter().filter(|line| line.starts_with("request"));
        requests.filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok()).collect()
    }

    #[track_caller]
    fn none_is_left(&self) {
        let all: Vec<u32> = ["start ", "child "].iter().flat_map(|word| self.processes(word)).collect();
        assert!(!all.is_empty(), "there was a worker");
        until("no worker is left", || !all.iter().any(|pid| is_running(*pid)));
    }

    fn history(&self) -> Vec<Value> {
        let text =
            fs_err::read_to_string(self.lab.sandbox.mlxman_home().join("history.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process is there that has not ended.
fn is_running(pid: u32) -> bool {
    if cfg!(target_os = "linux") {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        return stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'));
    }
    let out = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps runs");
    let state = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

#[track_caller]
fn result<'a>(json: &'a Value, name: &str) -> &'a Value {
    let rows = json["results"].as_array().expect("`results`");
    rows.iter().find(|row| row["model"] == name).unwrap_or_else(|| panic!("{name} is in {json:#}"))
}

fn reason(row: &Value) -> &str {
    row["reason"].as_str().unwrap_or_default()
}

/// The ten likeliest tokens that the fake worker tells.
fn ten() -> Value {
    (0..10).map(|at| json!([at, 10.0 - f64::from(at)])).collect()
}

#[test]
fn a_model_in_good_health_passes_with_its_figures() {
    let bench = Bench::new(&["ok"]);
    let row = bench.one(&[], 0);
    assert_eq!(
        (&row["model"], &row["verdict"], &row["level"]),
        (&json!("ok"), &json!("pass"), &json!("generate"))
    );
    assert_eq!(row["path"], bench.folder.path("ok").to_string_lossy().as_ref());
    assert_eq!((row["prompt_tps"].as_f64(), row["generation_tps"].as_f64()), (Some(100.0), Some(12.5)));
    assert_eq!(row["peak_memory_bytes"], 123_456_789);
    assert_eq!((&row["dtype"], &row["device"]), (&json!("float32"), &json!("cpu (fake)")));
    assert_eq!(
        row["generation_spread"],
        json!({"median": 12.5, "min": 11.5, "max": 13.5, "trials": 3, "tokens": 8})
    );
    for field in ["reason", "answers"] {
        assert!(
            row.as_object().expect("a row").contains_key(field) && row[field].is_null(),
            "{field} is null"
        );
    }
    let table = bench.verify(&["ok", "--bench", "-n", "2"]).success();
    for text in ["ok", "pass", "generate", "12.5", "float32"] {
        assert!(table.stdout.contains(text), "{text} is in the table: {table}");
    }
    let asked = &bench.requests()[1]["measure"];
    assert_eq!(
        (&asked["prompt_tokens"], &asked["generated_tokens"], &asked["trials"]),
        (&json!(512), &json!(128), &json!(2))
    );
    bench.none_is_left();
}

#[test]
fn whatever_happens_to_one_model_is_its_result_alone() {
    let bench = Bench::new(&[
        "a-ok",
        "b-abort",
        "c-kill",
        "d-hang",
        "e-garbage",
        "f-exit",
        "g-silent",
        "h-nan",
        "i-ok",
        "j-stubborn",
        "k-ok",
    ]);
    let json = bench.json(&["--timeout", "4"], 1);
    for name in ["a-ok", "i-ok", "k-ok"] {
        assert_eq!(result(&json, name)["verdict"], "pass", "{json:#}");
    }
    let failed = |name: &str, words: &[&str]| {
        let row = result(&json, name);
        assert_eq!((&row["verdict"], &row["level"]), (&json!("fail"), &json!("load")), "{row:#}");
        assert_eq!(row["passed"], "structure");
        for word in words {
            assert!(reason(row).contains(word), "{word} is in: {row:#}");
        }
    };
    failed("b-abort", &["SIGABRT", "while it loaded", "std::runtime_error", "b-abort"]);
    failed("c-kill", &["SIGKILL", "by somebody", "memory", "--memory-limit"]);
    failed("d-hang", &["4 s", "--timeout"]);
    failed("e-garbage", &["protocol", "Loading checkpoint shards"]);
    failed("f-exit", &["status 7", "no use"]);
    failed("g-silent", &["status 0"]);
    failed("h-nan", &["has NaN", "download"]);
    failed("j-stubborn", &["--timeout"]);
    assert_eq!(
        (&result(&json, "b-abort")["signal"], &result(&json, "c-kill")["signal"]),
        (&json!("SIGABRT"), &json!("SIGKILL"))
    );
    // A model that fails is no reason to start another worker; one that ends its worker is.
    assert_eq!(bench.processes("start ").len(), 8);
    bench.none_is_left();
    let table = bench.verify(&["b-abort"]).expect_code(1);
    assert!(table.stdout.contains("SIGABRT") && table.stderr.contains("SIGABRT"), "{table}");
}

#[test]
fn a_warm_worker_is_asked_again() {
    let bench = Bench::new(&["a-ok", "b-ok", "c-image", "d-ok"]);
    bench.json(&[], 0);
    assert_eq!(bench.processes("start ").len(), 1);
    assert_eq!(bench.requests().len(), 4);
    // It was let go, not killed.
    assert_eq!(bench.processes("end "), bench.processes("start "));
    bench.none_is_left();
}

#[test]
fn several_models_at_once() {
    let names: Vec<String> = (0..6).map(|at| format!("m{at}-slow")).collect();
    let bench = Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let json = bench.json(&["--jobs", "3"], 0);
    let order: Vec<&str> =
        json["results"].as_array().expect("rows").iter().filter_map(|row| row["model"].as_str()).collect();
    assert_eq!(order, names, "the rows are in order, whatever ended first");
    assert_eq!(bench.processes("start ").len(), 3);
    assert_eq!(bench.history().len(), 6);
    // Where memory is for one at a time, one at a time it is, however many workers there are.
    fs_err::remove_file(&bench.log).expect("the log goes");
    let json = bench.json(&["--jobs", "3", "--memory-limit", "400MiB"], 0);
    assert_eq!(json["results"].as_array().map(Vec::len), Some(6));
    let lines = bench.logged();
    let words: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    let asked: Vec<&str> = words.into_iter().filter(|word| matches!(*word, "request" | "done")).collect();
    assert_eq!(asked, ["request", "done"].repeat(6), "never two at once");
    bench.none_is_left();
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_loaded() {
    let bench = Bench::new(&["ok"]);
    let row = bench.one(&["--memory-limit", "1MB"], 0);
    assert_eq!((&row["verdict"], &row["passed"]), (&json!("skipped"), &json!("structure")));
    assert!(reason(&row).contains("1.0 MB") && reason(&row).contains("--memory-limit"), "{row:#}");
    assert!(bench.requests().is_empty());
    // What was asked for and not done is a problem.
    let _ = bench.one(&["--memory-limit", "1MB", "--level", "load"], 1);
}

#[test]
#[cfg(target_os = "linux")]
fn what_takes_more_than_it_may_is_stopped() {
    let bench = Bench::new(&["hungry"]);
    let row = bench.one(&["--memory-limit", "400MiB"], 1);
    assert!(row["verdict"] == "fail" && reason(&row).contains("419.4 MB are allowed"), "{row:#}");
    bench.none_is_left();
}

#[test]
fn without_an_engine_the_structure_is_checked() {
    for (variable, value) in [("MLXMAN_WORKER", "/nowhere/mlxman-worker"), ("FAKE_WORKER", "no-engine")] {
        let mut bench = Bench::new(&["a", "b"]);
        bench.lab.sandbox.set(variable, value);
        let json = bench.json(&[], 0);
        for row in json["results"].as_array().expect("rows") {
            assert_eq!((&row["verdict"], &row["level"]), (&json!("pass"), &json!("structure")));
            let instead = row["instead"].as_str().expect("`instead`");
            assert!(instead.contains("cargo xtask install"), "{instead}");
        }
        let row = bench.one(&["a", "--level", "generate"], 1);
        assert_eq!((&row["verdict"], &row["level"]), (&json!("skipped"), &json!("generate")));
        assert!(reason(&row).contains("cargo xtask install"), "{row:#}");
        assert_eq!(bench.one(&["a", "--level", "structure"], 0)["instead"], Value::Null);
        assert!(bench.processes("start ").len() <= 2, "it is asked once a run");
    }
}

#[test]
fn a_worker_that_does_not_work_is_told_and_not_started_again() {
    for (value, words) in [
        ("exit", "libmlx.so"),
        ("other-protocol", "version 99"),
        ("garbage", "what is your name"),
        ("hang", "not ready within 5 s"),
    ] {
        let mut bench = Bench::new(&["a", "b"]);
        bench.lab.sandbox.set("FAKE_WORKER", value);
        let json = bench.json(&["--timeout", "2"], 1);
        for name in ["a", "b"] {
            let row = result(&json, name);
            assert!(row["verdict"] == "skipped" && reason(row).contains(words), "{row:#}");
        }
        assert_eq!(bench.processes("start ").len(), 1);
        bench.none_is_left();
    }
}

#[test]
fn ctrl_c_leaves_no_process_behind() {
    for signal in ["-INT", "-TERM", "-KILL"] {
        let bench = Bench::new(&["a-ok", "b-hang", "c-ok"]);
        let child = bench
            .lab
            .command(&["verify", "--json", "--timeout", "10m"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let worker = |line: &String| line.starts_with("request") && line.contains(" b-hang ");
        until("the second model is being loaded", || bench.logged().iter().any(worker));
        let killed = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        let out: Raw = child.wait_with_output().expect("it ends");
        // Without the kernel's help, a worker that sleeps does not hear of the end of the program.
        if signal != "-KILL" || cfg!(target_os = "linux") {
            bench.none_is_left();
        }
        let kept: Vec<Value> = bench.history().iter().map(|line| line["model"].clone()).collect();
        assert_eq!(kept, ["a-ok"], "what was done is kept, and what was not says nothing");
        if signal != "-KILL" {
            assert_eq!(out.status.code(), Some(1));
            let json: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            assert_eq!(result(&json, "a-ok")["verdict"], "pass");
            for name in ["b-hang", "c-ok"] {
                let row = result(&json, name);
                assert!(row["verdict"] == "skipped" && reason(row).contains("interrupted"), "{row:#}");
            }
        }
    }
}

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

#[test]
fn results_are_kept_and_found_again() {
    let bench = Bench::new(&["ok", "nan", "other"]);
    bench.lab.sync();
    let _ = bench.verify(&["ok", "nan"]).expect_code(1);
    let list = bench.lab.list();
    let found = &model(&list, "ok")["verification"];
    assert_eq!((&found["verdict"], &found["generation_tps"]), (&json!("pass"), &json!(12.5)));
    assert_valid(&bench.lab, "manifest", model(&list, "ok"));
    assert_eq!(model(&list, "other")["verification"], Value::Null);
    let filtered = |expr: &str| {
        let out = bench.lab.run(["list", "--json", "--filter", expr]).success();
        names(&out.json()).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(filtered("tps<20"), ["ok"]);
    assert_eq!(filtered("tps>20"), [""; 0]);
    assert_eq!(filtered("verified=never"), ["other"]);
    assert_eq!(filtered("verified<1d"), ["nan", "ok"]);
    assert_eq!(filtered("verified>7d"), [""; 0]);
    assert_eq!(filtered("verdict=fail"), ["nan"]);
    assert_eq!(filtered("prompt_tps>=100"), ["ok"]);
    let table = bench.lab.run(["list", "--verified"]).success().stdout;
    assert!(table.contains("VERIFIED") && table.contains("12.5") && table.contains("float32"), "{table}");
    assert!(!bench.lab.run(["list"]).success().stdout.contains("VERIFIED"));
    let page = bench.lab.run(["show", "ok"]).success().stdout;
    assert!(page.contains("12.5 tokens/s (float32, cpu (fake)"), "{page}");
    let page = bench.lab.run(["show", "nan"]).success().stdout;
    assert!(page.contains("has NaN"), "{page}");
    // The history has a line for each, whatever the manifests say.
    let _ = bench.verify(&["ok", "--level", "structure"]).success();
    let levels: Vec<Value> = bench.history().iter().map(|line| line["level"].clone()).collect();
    assert_eq!(levels, ["generate", "load", "structure"]);
    let list = bench.lab.list();
    assert_eq!(model(&list, "ok")["verification"]["level"], "generate", "what says less replaces nothing");
}

#[test]
fn a_look_at_the_contents_takes_no_speed_away() {
    let bench = Bench::new(&["ok"]);
    let _ = bench.lab.run(["sync"]).success();
    let _ = bench.verify(&["ok"]).success();
    let asked = bench.requests().len();
    let row = bench.one(&["ok", "--level", "integrity"], 0);
    assert_eq!((&row["level"], &row["verdict"]), (&json!("integrity"), &json!("pass")));
    assert_eq!(bench.requests().len(), asked, "no worker is asked");
    let list = bench.lab.list();
    let kept = model(&list, "ok");
    assert_eq!(
        (&kept["verification"]["generation_tps"], &kept["integrity"]["verdict"]),
        (&json!(12.5), &json!("pass"))
    );
    let levels: Vec<Value> = bench.history().iter().map(|line| line["level"].clone()).collect();
    assert_eq!(levels, ["generate", "integrity"]);
    let _ = bench.verify(&["ok"]).success();
    assert_eq!(model(&bench.lab.list(), "ok")["integrity"]["verdict"], "pass");
}

#[test]
fn a_result_outlives_syncs_and_not_the_files() {
    let bench = Bench::new(&["ok"]);
    let _ = bench.lab.run(["tag", "ok", "x"]);
    let _ = bench.verify(&[]).success();
    bench.lab.sync();
    let _ = bench.lab.run(["sync"]).success();
    let _ = bench.lab.run(["note", "ok", "good"]).success();
    bench.lab.sync();
    let verified =
        |expr: &str| names(&bench.lab.run(["list", "--json", "--filter", expr]).success().json()).len();
    assert_eq!((verified("verified<1d"), verified("tps=12.5")), (1, 1));
    // The files' contents are others.
    bench.model("ok", &four_bit(99));
    bench.lab.sync();
    let list = bench.lab.list();
    assert_eq!(model(&list, "ok")["verification"]["stale"], true);
    assert_eq!((verified("verified<1d"), verified("verified=never"), verified("tps=12.5")), (0, 1, 0));
    assert!(bench.lab.run(["list", "--verified"]).success().stdout.contains("stale"));
    assert!(bench.lab.run(["show", "ok"]).success().stdout.contains("verify it again"));
    let _ = bench.verify(&[]).success();
    assert_eq!(model(&bench.lab.list(), "ok")["verification"]["stale"], Value::Null);
    assert_eq!(verified("verified<1d"), 1);
}

#[test]
fn filters_choose_what_is_verified() {
    let bench = Bench::new(&["a-ok", "b-ok"]);
    bench.model("c-bf16", &ModelSpec::llama());
    let json = bench.json(&["--quantization", "4bit"], 0);
    assert_eq!(json["results"].as_array().map(Vec::len), Some(2));
    let json = bench.json(&["--filter", "verified=never"], 0);
    assert_eq!(json["results"][0]["model"], "c-bf16");
    assert_eq!(json["results"].as_array().map(Vec::len), Some(1));
    let out = bench.verify(&["--filter", "verified=never"]).success();
    assert!(out.stderr.contains("no model to verify"), "{out}");
}

#[test]
fn known_answers_are_recorded_and_compared() {
    let mut bench = Bench::new(&["ok"]);
    bench.model("full", &ModelSpec::llama().quant(mlxman_testkit::Quant::F32));
    let json = bench.json(&["--record-answers"], 0);
    assert_eq!(result(&json, "ok")["answers"], Value::Null);
    let files: Vec<_> =
        fs_err::read_dir(bench.lab.sandbox.mlxman_home().join("answers")).expect("answers").collect();
    assert_eq!(files.len(), 2);
    for row in bench.json(&["--answers", "auto"], 0)["results"].as_array().expect("rows") {
        let answers = &row["answers"];
        assert_eq!(answers["max_relative_error"], 0.0, "{row:#}");
        assert_eq!((&answers["greedy_matched"], &answers["greedy_total"]), (&json!(16), &json!(16)));
        assert_eq!(answers["tolerance"], 1e-3, "both were computed in float32");
    }
    bench.lab.sandbox.set("FAKE_WORKER_ANSWERS", "drift");
    let row = bench.one(&["ok", "--answers", "auto"], 1);
    assert!(row["verdict"] == "fail" && reason(&row).contains("--record-answers"), "{row:#}");
    assert!(row["answers"]["max_relative_error"].as_f64().is_some_and(|error| error > 1e-3 && error < 2e-2));
    // A token that flips counts where both sides were computed in one type, whatever the checkpoint's is.
    bench.lab.sandbox.set("FAKE_WORKER_ANSWERS", "flip");
    let json = bench.json(&["--answers", "auto"], 1);
    assert_eq!(
        (&result(&json, "ok")["verdict"], &result(&json, "full")["verdict"]),
        (&json!("fail"), &json!("fail"))
    );
    assert_eq!(result(&json, "ok")["answers"]["greedy_matched"], 3);
    bench.lab.sandbox.set("FAKE_WORKER_ANSWERS", "deaf");
    // Answers of other files say nothing of these.
    bench.model("ok", &four_bit(50));
    bench.lab.sandbox.set("FAKE_WORKER_ANSWERS", "wrong");
    assert_eq!(bench.one(&["ok", "--answers", "auto"], 0)["answers"], Value::Null);
}

#[test]
fn a_reference_beside_the_model_is_found() {
    let bench = Bench::new(&["ok", "drift", "wrong"]);
    let reference = json!({"prompt_ids": [1, 2, 3], "logits_head": [6.0_f64.sin(), 7.0_f64.sin()], "top10": [],
        "greedy": [0, 1], "computed_by": "somebody", "more": "is nobody's business"});
    for name in ["ok", "drift", "wrong"] {
        fs_err::write(bench.folder.path(name).join("reference.json"), reference.to_string())
            .expect("a reference");
    }
    let json = bench.json(&["--answers", "auto"], 1);
    // The checkpoint is of a half type, and so is what the reference was computed in.
    for (name, verdict) in [("ok", "pass"), ("drift", "pass"), ("wrong", "fail")] {
        let row = result(&json, name);
        assert_eq!(row["verdict"], verdict, "{row:#}");
        assert_eq!(
            (&row["answers"]["tolerance"], &row["answers"]["greedy_total"]),
            (&json!(2e-2), &json!(2))
        );
    }
    assert_eq!(
        bench.requests()[0]["answers"],
        json!({"prompt_ids": [1, 2, 3], "logits_head": 2, "greedy": 2})
    );
    let file = bench.lab.sandbox.work().join("answers.json");
    fs_err::write(&file, reference.to_string()).expect("a file");
    assert_eq!(bench.one(&["ok", "--answers", "answers.json"], 0)["answers"]["computed_by"], "somebody");
    // The likeliest tokens count though no greedy one differs.
    for (top10, code) in [(json!([[0, 10.0], [5, 9.0]]), 1), (json!([[0, 999.0]]), 1), (ten(), 0)] {
        let mut reference = reference.clone();
        reference["top10"] = top10;
        fs_err::write(&file, reference.to_string()).expect("a file");
        let row = bench.one(&["ok", "--answers", "answers.json"], code);
        assert_eq!(reason(&row).contains("likeliest"), code == 1, "{row:#}");
    }
    let _ = bench.verify(&["ok", "--answers", "nowhere.json"]).expect_code(2);
    fs_err::write(&file, "{}").expect("a file");
    let _ = bench.verify(&["ok", "--answers", "answers.json"]).expect_code(2);
    let mut empty = reference;
    (empty["logits_head"], empty["greedy"]) = (json!([]), json!([]));
    fs_err::write(&file, empty.to_string()).expect("a file");
    let out = bench.verify(&["ok", "--answers", "answers.json"]).expect_code(1);
    assert!(out.stdout.contains("nothing compared") && !out.stdout.contains("NaN"), "{out}");
    // What never ends, or is too large, is not read.
    let large = fs_err::File::create(&file).expect("a file");
    large.set_len((64 << 20) + 1).expect("a sparse file");
    let pipe = bench.lab.sandbox.work().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o644.into()).expect("a pipe");
    for (named, word) in [("answers.json", "larger"), ("pipe", "regular"), ("/dev/zero", "regular")] {
        let out = bench.verify(&["ok", "--answers", named]).expect_code(2);
        assert!(out.stderr.contains(named) && out.stderr.contains(word), "{out}");
    }
}

#[test]
fn a_damaged_reference_is_told() {
    let bench = Bench::new(&["ok"]);
    let place = bench.folder.path("ok").join("reference.json");
    for text in [
        r#"{"prompt_ids": [1,2"#,
        r#"{"prompt_ids": [1], "logits_head": [NaN], "top10": [], "greedy": [0], "computed_by": ""}"#,
        r#"{"prompt_ids": [-1], "logits_head": [0.5], "top10": [], "greedy": [0], "computed_by": ""}"#,
        r#"{"greedy": "always"}"#,
        "",
    ] {
        fs_err::write(&place, text).expect("a reference");
        let row = bench.one(&["--answers", "auto"], 1);
        assert_eq!(row["verdict"], "skipped", "{row:#}");
        assert!(reason(&row).contains(place.to_str().expect("UTF-8")), "{row:#}");
    }
    assert!(bench.requests().is_empty());
    // What is something else is no reference.
    for text in [r#"{"title": "a book"}"#, "[1, 2]", "null"] {
        fs_err::write(&place, text).expect("no reference");
        let row = bench.one(&["--answers", "auto"], 0);
        assert!(row["verdict"] == "pass" && row["notes"].to_string().contains("not compared"), "{row:#}");
    }
}

#[test]
fn a_question_without_end_is_not_asked() {
    let bench = Bench::new(&["ok"]);
    let ids = |count: usize| vec![1; count];
    let place = bench.folder.path("ok").join("reference.json");
    for (prompt, greedy, limit) in [(8193, 1, "8192"), (200_000, 1, "8192"), (1, 1025, "1024")] {
        let reference = json!({"prompt_ids": ids(prompt), "logits_head": [0.5], "top10": [], "greedy": ids(greedy),
            "computed_by": "somebody"});
        fs_err::write(&place, reference.to_string()).expect("a reference");
        let row = bench.one(&["--answers", "auto"], 1);
        assert_eq!(row["verdict"], "skipped", "{row:#}");
        let path = place.to_str().expect("UTF-8");
        assert!(reason(&row).contains(path) && reason(&row).contains(limit), "{row:#}");
        let out = bench.verify(&["--answers", path]).expect_code(2);
        assert!(out.stderr.contains(path) && out.stderr.contains(limit), "{out}");
    }
    assert!(bench.requests().is_empty());
    // As much as may be asked is.
    let reference = json!({"prompt_ids": ids(8192), "logits_head": [], "top10": [], "greedy": ids(1024), "computed_by": ""});
    fs_err::write(&place, reference.to_string()).expect("a reference");
    assert_eq!(bench.one(&["--answers", "auto"], 0)["answers"]["greedy_total"], 1024);
}

#[test]
fn an_adapter_is_loaded_over_its_base() {
    let bench = Bench::new(&["base"]);
    let adapter = mlxman_testkit::mlx_adapter(&four_bit(5), "acme/base");
    let _ = bench.folder.model("tuned", &adapter);
    let row = bench.one(&["tuned"], 0);
    assert_eq!(row["level"], "load");
    assert!(row["instead"].as_str().is_some_and(|text| text.contains("acme/base")), "{row:#}");
    let _ = bench.lab.hub.repo("acme/base").snapshot(&four_bit(5).files()).with_ref("main");
    bench.lab.sync();
    let row = bench.one(&["tuned"], 0);
    assert_eq!(row["level"], "generate", "{row:#}");
    let request = bench.requests().pop().expect("a request");
    assert!(request["adapter"].as_str().is_some_and(|path| path.ends_with("/tuned")), "{request:#}");
    assert!(request["model"].as_str().is_some_and(|path| path.contains("models--acme--base")), "{request:#}");
}

#[test]
fn an_adapter_may_name_its_base_by_a_path() {
    let bench = Bench::new(&["known", "broken"]);
    cut(&bench.folder.path("broken").join("model.safetensors"), 1000);
    let other = FolderStore::create(bench.lab.sandbox.work());
    let far = other.model("far", &four_bit(3).files()).canonicalize().expect("a path");
    std::os::unix::fs::symlink(&far, bench.folder.path("link")).expect("a link");
    fs_err::create_dir(other.path("empty")).expect("a directory");
    let (known, far) = (bench.folder.path("known"), far.to_str().expect("UTF-8"));
    let known = known.to_str().expect("UTF-8");
    let _ = bench.lab.run(["sync", "--fast"]).expect_code(1);
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (broken, empty) = (text(bench.folder.path("broken")), text(other.path("empty")));
    let base = |named: &str| {
        let _ = bench.folder.model("tuned", &mlxman_testkit::mlx_adapter(&four_bit(5), named));
        let row = bench.one(&["tuned"], 0);
        let request = bench.requests().pop().expect("a request");
        match row["level"] == "generate" {
            true => request["model"].clone(),
            false => {
                assert!(row["instead"].as_str().is_some_and(|text| text.contains(named)), "{row:#}");
                assert!(request["adapter"].is_null(), "{request:#}");
                Value::Null
            }
        }
    };
    for (named, found) in [(far, far), (known, known), ("../known", known), ("./../link", far)] {
        assert_eq!(base(named), found, "{named}");
    }
    for named in [&broken, &empty, "/nowhere/at/all", "../nothing", "nothing"] {
        assert_eq!(base(named), Value::Null, "{named}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_worker_gets_the_blas_that_is_named() {
    let mut bench = Bench::new(&["ok"]);
    let blas = bench.lab.sandbox.root().join("libmine.so");
    bench.lab.sandbox.set("MLXMAN_BLAS", &blas);
    // What cannot be preloaded is told by the loader, and nothing comes of it.
    let _ = bench.verify(&[]).success();
    let start = bench.logged().into_iter().find(|line| line.starts_with("start")).expect("a start");
    assert!(start.ends_with(blas.to_str().expect("UTF-8")), "{start}");
}

#[test]
fn wrong_calls() {
    let bench = Bench::new(&["ok"]);
    for args in [
        &["--level", "everything"][..],
        &["--timeout", "soon"],
        &["--timeout", "0"],
        &["--memory-limit", "much"],
        &["--quick", "--bench"],
        &["--record-answers", "--answers", "auto"],
        &["--answers", "auto", "--level", "load"],
        &["--answers", "auto", "--level", "structure"],
        &["--record-answers", "--level", "load"],
        &["--jobs", "0"],
        &["--filter", "tps~x"],
        &["-g", "0"],
        &["-g", "1048577"],
        &["-p", "999999999"],
    ] {
        let out = bench.verify(args).expect_code(2);
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{out}");
    }
    assert!(bench.logged().is_empty(), "no worker was started");
}
