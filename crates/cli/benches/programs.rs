//! Whole programs side by side: mlxman, and those of its peers that are found on `PATH` (`du`, `hf-fm`, `hf`, `b3sum`).
//!
//! Every program runs once a round, one after the other, so that a machine whose speed drifts does not favour one of
//! them; a ratio is the median of the rounds' own ratios. What is measured is a program from its start to its end.
//!
//! ```console
//! $ cargo bench -p mlxman --bench programs                                # some minutes, and 7 GB of disk
//! $ cargo bench -p mlxman --bench programs -- --repos 100 --rounds 5 --mebibytes 512
//! ```
//!
//! `--test`, or a run without `--bench` (as by `cargo test --all-targets`), is one tiny round of everything.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it measured")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use mlxman_testkit::safetensors::{Dtype, Tensor, header};
use mlxman_testkit::{BigTree, HubStore, ModelSpec, Sandbox, big_tree, git_sha1, sha1_hex, sha256_hex};

/// How much is measured.
struct Size {
    repos: usize,
    rounds: usize,
    mebibytes: usize,
    /// Whether it is only tried that everything runs.
    test: bool,
}

/// One program with its arguments.
struct Case<'a> {
    name: &'static str,
    command: Box<dyn Fn() -> Command + 'a>,
    /// Runs before each run, outside the clock.
    before: Box<dyn Fn() + 'a>,
}

/// What was measured of a case: a time for each round.
struct Times {
    name: &'static str,
    rounds: Vec<Duration>,
    /// Peak memory in bytes, where it could be had.
    peak: Option<u64>,
}

fn main() -> ExitCode {
    let Some(size) = size(&std::env::args().skip(1).collect::<Vec<_>>()) else {
        return ExitCode::SUCCESS;
    };
    let sandbox = tree(&size, size.repos);
    first_sync(&size, &sandbox);
    warm(&size, &sandbox, size.rounds, "warm");
    drop(sandbox);
    let many = tree(&size, 10 * size.repos);
    registry_of(&many);
    warm(&size, &many, size.rounds.div_ceil(3), "warm, ten times the repos");
    drop(many);
    planning(&size);
    removing(&size);
    hashing(&size);
    integrity(&size);
    second_sync(&size);
    ExitCode::SUCCESS
}

/// The sizes that the arguments ask for; `None` where a test runner only asks what there is.
fn size(args: &[String]) -> Option<Size> {
    if args.iter().any(|arg| arg == "--list") {
        println!("programs: benchmark");
        return None;
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str, default: usize| {
        let value = args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
        value.map_or(default, |value| value.parse().expect("a number follows"))
    };
    // As criterion has it: cargo says `--bench` when it is `cargo bench` that runs.
    let test = has("--test") || !has("--bench");
    let of = |flag, full, tiny| number(flag, if test { tiny } else { full });
    Some(Size {
        repos: of("--repos", 1000, 3),
        rounds: of("--rounds", 15, 1).max(1),
        mebibytes: of("--mebibytes", 4096, 8).max(8),
        test,
    })
}

/// A hub cache of this many repos with 13 links each, whose weights are holes with valid headers.
fn tree(size: &Size, repos: usize) -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_mlxman"));
    tell(size, big_tree(&sandbox.hf_home().join("hub"), repos, 13));
    sandbox
}

fn tell(size: &Size, made: BigTree) {
    if !size.test {
        println!("\n{} repos, {} links, {:.1} TB apparent", made.repos, made.links, made.bytes as f64 / 1e12);
    }
}

fn registry_of(sandbox: &Sandbox) {
    let _ = sandbox.run(["sync", "--fast", "--quiet"]).success();
}

/// `program` with these arguments in the sandbox's environment.
fn case<'a>(
    sandbox: &'a Sandbox,
    name: &'static str,
    program: impl Into<PathBuf>,
    args: &'a [&'a str],
) -> Case<'a> {
    let program = program.into();
    let command = move || {
        let mut command = sandbox.command(&program);
        command.args(args).env("HF_HUB_OFFLINE", "1");
        command
    };
    Case { name, command: Box::new(command), before: Box::new(|| {}) }
}

fn mlxman<'a>(sandbox: &'a Sandbox, name: &'static str, args: &'a [&'a str]) -> Case<'a> {
    case(sandbox, name, env!("CARGO_BIN_EXE_mlxman"), args)
}

/// The same with the registry taken away before each run.
fn anew<'a>(sandbox: &'a Sandbox, mut case: Case<'a>) -> Case<'a> {
    case.before = Box::new(|| {
        let home = sandbox.mlxman_home();
        if home.exists() {
            fs_err::remove_dir_all(home).expect("the registry can be taken away");
        }
    });
    case
}

/// A program of somebody else's, where it is installed.
fn peer<'a>(
    size: &Size,
    sandbox: &'a Sandbox,
    name: &'static str,
    program: &str,
    args: &'a [&'a str],
) -> Option<Case<'a>> {
    if size.test {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("{program} is not on PATH: left out");
    }
    Some(case(sandbox, name, found?, args))
}

fn first_sync(size: &Size, sandbox: &Sandbox) {
    let first = anew(sandbox, mlxman(sandbox, "sync --fast", &["sync", "--fast", "--quiet"]));
    let times = measure(size, size.rounds.div_ceil(5), &[first]);
    report(size, "first: every model is inspected, and its manifest written", &times, &[]);
}

fn warm(size: &Size, sandbox: &Sandbox, rounds: usize, title: &str) {
    let hub = sandbox.hf_home().join("hub");
    let hub = [hub.to_str().expect("a temporary directory's path is UTF-8")];
    let du_args = ["-s", hub[0]];
    let mut cases = vec![
        mlxman(sandbox, "sync --fast", &["sync", "--fast", "--quiet"]),
        case(sandbox, "du -s", "du", &du_args),
    ];
    cases.extend(peer(size, sandbox, "hf-fm status", "hf-fm", &["status"]));
    cases.extend(peer(size, sandbox, "hf cache ls", "hf", &["cache", "ls"]));
    cases.push(mlxman(sandbox, "list", &["list"]));
    cases.push(mlxman(sandbox, "list --json", &["list", "--json"]));
    cases.push(mlxman(sandbox, "clean preview", &["clean", "preview"]));
    let times = measure(size, rounds, &cases);
    report(
        size,
        title,
        &times,
        &[("sync --fast", "du -s"), ("sync --fast", "hf-fm status"), ("sync --fast", "hf cache ls")],
    );
}

/// What a plan costs beyond the scan that a sync does too: one of what is safe to go, and one of everything.
fn planning(size: &Size) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_mlxman"));
    // 24,000 links, in repos of a size that there are.
    tell(size, big_tree(&sandbox.hf_home().join("hub"), 2 * size.repos, 12));
    registry_of(&sandbox);
    let cases = [
        mlxman(&sandbox, "sync --fast", &["sync", "--fast", "--quiet"]),
        mlxman(&sandbox, "preview", &["clean", "preview"]),
        mlxman(&sandbox, "preview of all", &["clean", "preview", "--models", "*"]),
    ];
    let times = measure(size, size.rounds, &cases);
    report(size, "plans", &times, &[("preview", "sync --fast"), ("preview of all", "sync --fast")]);
}

const APPLY: [&str; 6] = ["clean", "apply", "--models", "*", "--yes", "--quiet"];

/// Ten thousand files and links moved into the trash, put back, and freed.
fn removing(size: &Size) {
    let sandbox = tree(size, size.repos * 385 / 1000 + 1);
    registry_of(&sandbox);
    let hub = sandbox.hf_home().join("hub");
    let run = |args: &[&str]| drop(sandbox.run(args).success());
    let is_moved = || hub.join(".mlxman-trash").exists();
    let there = || {
        let mut names = fs_err::read_dir(&hub).expect("the store").flatten();
        if is_moved() {
            run(&["undo", "--quiet"]);
        } else if !names.any(|entry| entry.file_name().to_string_lossy().starts_with("models--")) {
            let _ = big_tree(&hub, size.repos * 385 / 1000 + 1, 13);
            registry_of(&sandbox);
        }
    };
    let moved = || {
        if !is_moved() {
            there();
            run(&APPLY);
        }
    };
    let mut cases = [
        mlxman(&sandbox, "clean apply", &APPLY),
        mlxman(&sandbox, "undo", &["undo", "--quiet"]),
        mlxman(&sandbox, "trash empty", &["trash", "empty", "--yes", "--quiet"]),
    ];
    cases[0].before = Box::new(there);
    cases[1].before = Box::new(moved);
    cases[2].before = Box::new(moved);
    let times = measure(size, size.rounds.div_ceil(3), &cases);
    report(size, "removing", &times, &[]);
}

/// The first full sync of some gigabytes that lie in the page cache.
fn hashing(size: &Size) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_mlxman"));
    let blobs = large_model(&sandbox.hub(), size.mebibytes);
    let names: Vec<&str> = blobs.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    let mut cases = vec![anew(&sandbox, mlxman(&sandbox, "sync", &["sync", "--quiet"]))];
    cases.extend(peer(size, &sandbox, "b3sum", "b3sum", &names));
    let times = measure(size, size.rounds.div_ceil(2), &cases);
    if !size.test {
        println!("\n{} MiB of weights in {} files", size.mebibytes, blobs.len());
    }
    report(size, "first full sync", &times, &[("sync", "b3sum")]);
}

/// Checking the contents of the same, beside OpenSSL: reading the same files, as many at once; and in memory on all cores,
/// which is what it does without reading anything.
fn integrity(size: &Size) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_mlxman"));
    let blobs = large_model(&sandbox.hub(), size.mebibytes);
    let bytes: u64 = blobs.iter().map(|blob| fs_err::metadata(blob).expect("the blob").len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let script = "printf '%s\\0' \"$@\" | xargs -0 -n 1 -P \"$0\" openssl dgst -sha256";
    let mut words = vec!["-c", script, cores.as_str()];
    words.extend(blobs.iter().map(|path| path.to_str().expect("UTF-8")));
    let args = ["verify", "--level", "integrity", "--again", "--quiet"];
    let mut cases = vec![mlxman(&sandbox, "integrity", &args)];
    let has_openssl = !size.test && openssl_rate(&cores).is_some();
    cases.extend(has_openssl.then(|| case(&sandbox, "openssl dgst", "/bin/sh", &words)));
    let times = measure(size, size.rounds.div_ceil(2), &cases);
    report(size, "verify --level integrity, SHA-256", &times, &[("integrity", "openssl dgst")]);
    let mut memory: Vec<f64> = (0..3).filter_map(|_| openssl_rate(&cores).filter(|_| has_openssl)).collect();
    if let (Some(ours), false) = (times.first(), memory.is_empty()) {
        let mut seconds: Vec<f64> = ours.rounds.iter().map(Duration::as_secs_f64).collect();
        let rate = bytes as f64 / spread(&mut seconds).1;
        let openssl = spread(&mut memory).1;
        println!(
            "  {:.2} GB/s; openssl speed, in memory, {:.2} GB/s: {:.2}",
            rate / 1e9,
            openssl / 1e9,
            rate / openssl
        );
    }
}

/// Bytes a second that OpenSSL hashes in memory, on all cores at once.
fn openssl_rate(cores: &str) -> Option<f64> {
    let mut command = Command::new("openssl");
    command.args(["speed", "-multi", cores, "-evp", "sha256", "-bytes", "1048576", "-seconds", "2"]);
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("sha256"))?;
    Some(1e3 * line.split_whitespace().nth(1)?.trim_end_matches('k').parse::<f64>().ok()?)
}

/// A second full sync has nothing to hash.
fn second_sync(size: &Size) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_mlxman"));
    let hub = sandbox.hub();
    let files = ModelSpec::llama().files();
    let repos = if size.test { 2 } else { 300 };
    for number in 0..repos {
        let _ = hub.repo(&format!("acme/small-{number:03}")).snapshot(&files).with_ref("main");
    }
    let _ = sandbox.run(["sync", "--quiet"]).success();
    let cases = [
        mlxman(&sandbox, "sync", &["sync", "--quiet"]),
        mlxman(&sandbox, "sync --fast", &["sync", "--fast", "--quiet"]),
    ];
    let times = measure(size, size.rounds, &cases);
    if !size.test {
        println!("\n{repos} small models with real weights");
    }
    report(size, "second full sync", &times, &[("sync", "sync --fast")]);
}

/// A model of eight shards with weights that do not repeat; gives the paths of their blobs.
fn large_model(hub: &HubStore, mebibytes: usize) -> Vec<PathBuf> {
    const SHARDS: usize = 8;
    let repo = hub.repo("acme/large");
    let commit = sha1_hex(b"large");
    let snapshot = repo.snapshot_path(&commit);
    for dir in [repo.blobs(), snapshot.clone()] {
        fs_err::create_dir_all(dir).expect("a directory can be made");
    }
    // No family that anybody knows: nobody expects certain tensors of it.
    let config = br#"{"model_type": "large"}"#;
    let etag = git_sha1(config);
    fs_err::write(repo.blob(&etag), config).expect("the configuration can be written");
    let link = snapshot.join("config.json");
    fs_err::os::unix::fs::symlink(format!("../../blobs/{etag}"), link).expect("a link can be made");
    repo.add_ref("main", &commit);
    let elements = (mebibytes / SHARDS) << 19;
    (1..=SHARDS)
        .map(|shard| {
            let name = format!("model-{shard:05}-of-{SHARDS:05}.safetensors");
            let tensor = Tensor::new(format!("layers.{shard}.weight"), Dtype::BF16, &[elements]);
            let mut bytes = header(&[tensor], &[("format", "mlx")]);
            let mut state = shard as u64;
            bytes.reserve_exact(2 * elements);
            for _ in 0..elements / 4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
            }
            let etag = sha256_hex(&bytes);
            let blob = repo.blob(&etag);
            fs_err::write(&blob, bytes).expect("the blob can be written");
            let link = snapshot.join(name);
            fs_err::os::unix::fs::symlink(format!("../../blobs/{etag}"), link).expect("a link can be made");
            blob
        })
        .collect()
}

/// Runs all cases in turn, round after round, after one round that does not count.
fn measure(size: &Size, rounds: usize, cases: &[Case<'_>]) -> Vec<Times> {
    let mut times: Vec<Times> =
        cases.iter().map(|case| Times { name: case.name, rounds: Vec::new(), peak: None }).collect();
    for round in 0..=rounds {
        for (case, times) in cases.iter().zip(&mut times) {
            (case.before)();
            if round == 0 {
                times.peak = if size.test { None } else { peak(&(case.command)()) };
                (case.before)();
            }
            let took = time(&mut (case.command)());
            if round > 0 {
                times.rounds.push(took);
            }
        }
    }
    times
}

fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let took = start.elapsed();
    match status {
        Ok(status) if status.success() => took,
        other => panic!("{command:?} ended with {other:?}"),
    }
}

/// The most memory that the program had resident, as GNU `time` says it.
fn peak(command: &Command) -> Option<u64> {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    timed.stdin(Stdio::null()).stdout(Stdio::null());
    timed.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let output = timed.output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().last()?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

fn report(size: &Size, title: &str, times: &[Times], ratios: &[(&str, &str)]) {
    if size.test {
        return;
    }
    println!("\n{title}");
    for one in times {
        let mut seconds: Vec<f64> = one.rounds.iter().map(Duration::as_secs_f64).collect();
        let (low, median, high) = spread(&mut seconds);
        let (low, median, high) = (1e3 * low, 1e3 * median, 1e3 * high);
        let peak = one.peak.map(|bytes| format!("{:.1} MB", bytes as f64 / 1e6)).unwrap_or_default();
        println!("  {:<14} {median:>9.1} ms  ({low:.1}–{high:.1})  {peak:>9}", one.name);
    }
    let find = |name: &str| times.iter().find(|one| one.name == name);
    for (ours, theirs) in ratios {
        if let (Some(a), Some(b)) = (find(ours), find(theirs)) {
            let mut ratios: Vec<f64> =
                a.rounds.iter().zip(&b.rounds).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
            let (low, median, high) = spread(&mut ratios);
            println!("  {:<28} {median:.2}  ({low:.2}–{high:.2})", format!("{ours} / {theirs}"));
        }
    }
}

/// Least, median and greatest.
fn spread(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
}
