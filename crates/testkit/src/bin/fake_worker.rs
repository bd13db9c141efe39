//! A worker without an engine, for the tests of `mlxman verify`: what it does with a model is in the name of the model's
//! directory. It is written from the protocol's description, not with its types, so that a change of the wire's form
//! shows.
//!
//! Words in a name: `abort`, `kill`, `hang`, `stubborn` (hangs and takes no SIGTERM), `garbage`, `exit`, `silent`,
//! `hungry` (takes memory), `nan`, `unknown` (an architecture that nobody knows), `image` (no language model), `slow`,
//! `deaf` (gives no answers), `drift` and `wrong` (answers that are a little and far off), `flip` (another greedy token),
//! `half` (computes in bfloat16). Anything else is in good health.
//!
//! Variables: `FAKE_WORKER` is what it does at the start (`no-engine`, `other-protocol`, `exit`, `garbage`, `hang`);
//! `FAKE_WORKER_LOG` is a file to which it adds a line for each start, request and end.

use std::io::{BufRead, Write};
use std::time::Duration;

use serde_json::{Value, json};

fn main() {
    let pid = std::process::id();
    let preload = std::env::var("LD_PRELOAD").unwrap_or_default();
    log(&format!("start {pid} {preload}"));
    let ready = |protocol: u32, engine: Value| {
        say(&json!({"event": "ready", "protocol": protocol, "engine": engine}));
    };
    let engine = json!({"mlx_version": "0.0.0", "device": "cpu (fake)", "blas": "none"});
    match std::env::var("FAKE_WORKER").unwrap_or_default().as_str() {
        "no-engine" => ready(1, Value::Null),
        "other-protocol" => ready(99, engine),
        "exit" => {
            complain("libmlx.so: cannot open shared object file");
            leave(127);
        }
        "garbage" => print("hello, what is your name?\n"),
        "hang" => forever(),
        _ => ready(1, engine),
    }
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request: Value = serde_json::from_str(&line).expect("a request is JSON");
        let model = match &request["model"] {
            Value::String(path) => path.clone(),
            // One that is no UTF-8.
            bytes => {
                let bytes: Vec<u8> = serde_json::from_value(bytes.clone()).expect("`model` is a path");
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        let name = model.rsplit('/').next().unwrap_or(&model).to_owned();
        log(&format!("request {pid} {name} {request}"));
        answer(&request, &name);
    }
    log(&format!("end {pid}"));
}

fn answer(request: &Value, name: &str) {
    let id = &request["id"];
    let phase =
        |phase: &str| say(&json!({"event": "phase", "id": id, "phase": phase, "done": 1, "total": 2}));
    let has = |word: &str| name.split('-').any(|part| part == word);
    if has("exit") {
        complain("no use");
        leave(7);
    }
    phase("load");
    if has("abort") {
        complain("terminate called after throwing an instance of 'std::runtime_error'");
        std::process::abort();
    }
    if has("kill") {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        forever();
    }
    if has("hang") {
        forever();
    }
    if has("stubborn") {
        // A child that takes no SIGTERM: it is gone only when the whole group is killed.
        let child = std::process::Command::new("sh").args(["-c", "trap '' TERM; exec sleep 1000"]).spawn();
        log(&format!("child {}", child.expect("a shell starts").id()));
        forever();
    }
    if has("garbage") {
        print("Loading checkpoint shards: 50%\n");
        forever();
    }
    if has("silent") {
        leave(0);
    }
    if has("hungry") {
        let mut held = Vec::new();
        // Memory counts once it is written to.
        for _ in 0..64 {
            held.push(vec![1_u8; 16 << 20]);
            std::thread::sleep(Duration::from_millis(10));
        }
        log(&format!("held {}", held.len()));
        forever();
    }
    if has("slow") {
        std::thread::sleep(Duration::from_millis(300));
    }
    let rate = |median: f64, tokens: &Value| {
        json!({"median": median, "min": median - 1.0, "max": median + 1.0, "trials": request["measure"]["trials"],
            "tokens": tokens})
    };
    let dtype = if has("half") { "bfloat16" } else { "float32" };
    let mut report = json!({
        "level": "load", "family": "llama", "tensors": 21, "tensor_bytes": 1000, "load_seconds": 0.25,
        "peak_memory_bytes": 123_456_789, "dtype": dtype,
    });
    if has("nan") {
        report["level"] = Value::Null;
        let message = "model.layers.0.mlp.up_proj.weight has NaN in it; download the model again";
        report["failure"] = json!({"kind": "not_finite_weights", "message": message});
    } else if has("unknown") {
        report["unknown_architecture"] = json!("hyperllama");
        report["instead"] = json!("its tensors were read: no decoder knows the architecture hyperllama");
    } else if has("image") {
        report["instead"] = json!("its tensors were read: it is no language model");
    } else if request["level"] == "generate" {
        phase("prompt");
        phase("generate");
        report["level"] = json!("generate");
        report["prompt_tps"] = rate(100.0, &request["measure"]["prompt_tokens"]);
        report["generation_tps"] = rate(12.5, &request["measure"]["generated_tokens"]);
        report["first_token_seconds"] = json!(0.1);
        report["text"] = json!("Paris");
        if request["answers"].is_object() && !has("deaf") {
            report["answers"] = answers(&request["answers"], name);
        }
    }
    log(&format!("done {name}"));
    say(&json!({"event": "done", "id": id, "report": report}));
}

/// Answers that depend on the prompt alone, and what the name says is wrong with them. The environment says it too, so
/// that a model can answer otherwise another time.
fn answers(question: &Value, name: &str) -> Value {
    let words = std::env::var("FAKE_WORKER_ANSWERS").unwrap_or_default();
    let has = |word: &str| words == word || name.split('-').any(|part| part == word);
    let off = if has("wrong") {
        0.5
    } else if has("drift") {
        0.01
    } else {
        0.0
    };
    let prompt: Vec<u64> =
        question["prompt_ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
    let seed = prompt.iter().sum::<u64>() as f64;
    let logit = |at: u64| (seed + at as f64).sin();
    let heads = question["logits_head"].as_u64().unwrap_or(0);
    let logits: Vec<f64> = (0..heads).map(|at| logit(at) + if at == 0 { off } else { 0.0 }).collect();
    let top10: Vec<(u64, f64)> = (0..10).map(|at| (at, 10.0 - at as f64)).collect();
    let greedy: Vec<u64> = (0..question["greedy"].as_u64().unwrap_or(0))
        .map(|at| if at == 3 && has("flip") { 999 } else { at })
        .collect();
    json!({"prompt_ids": prompt, "logits_head": logits, "top10": top10, "greedy": greedy, "computed_by": "fake"})
}

fn say(event: &Value) {
    print(&format!("{event}\n"));
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Where nobody listens any more, the end of the input is next.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn log(line: &str) {
    if let Some(path) = std::env::var_os("FAKE_WORKER_LOG") {
        let mut file =
            fs_err::OpenOptions::new().create(true).append(true).open(path).expect("the log can be opened");
        file.write_all(format!("{line}\n").as_bytes()).expect("the log can be written");
    }
}

/// Sleeps, also when its input ends.
fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[expect(
    clippy::exit,
    reason = "a program that ends at once, in the middle of whatever it did, is what is tested"
)]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}
