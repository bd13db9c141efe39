//! `mlxman verify`, with a worker that does what the model's name says.

mod answers;
mod structure;

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
