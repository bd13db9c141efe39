//! Known answers: recorded, found beside a model, and compared.

use super::*;

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
