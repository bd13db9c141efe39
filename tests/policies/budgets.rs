//! `--max-size` and `--free`: what a budget names, and what it costs.

use super::*;

#[test]
fn max_size_takes_the_least_recently_used() {
    let lab = three();
    let all = used(&lab);
    let one = total(&lab.preview(&["--models", "acme/m200"]));
    let fits = lab.preview(&["--max-size", &format!("{all}")]);
    assert_eq!(candidates(&fits), names([]));
    let plan = lab.preview(&["--max-size", &format!("{}", all - 1)]);
    assert_eq!(candidates(&plan), names(["acme/m200"]));
    assert_eq!(row(&plan, "acme/m200")["rule"], "max_size");
    let plan = lab.preview(&["--max-size", &format!("{}", all - one - 1)]);
    assert_eq!(candidates(&plan), names(["acme/m100", "acme/m200"]));
    assert!(plan["shortfalls"].is_null());
    // Who was used last goes last, and a pin is passed over.
    let _ = lab.run(["path", "acme/m200"]).success();
    let plan = lab.preview(&["--max-size", &format!("{}", all - 1)]);
    assert_eq!(candidates(&plan), names(["acme/m100"]));
    let _ = lab.run(["pin", "acme/m100"]).success();
    let plan = lab.preview(&["--max-size", &format!("{}", all - 1)]);
    assert_eq!((candidates(&plan), kept(&plan, "acme/m100")), (names(["acme/m20"]), "pinned".to_owned()));
    // With what another policy names already, less has to go.
    let plan = lab.preview(&["--older-than", "10d", "--max-size", &format!("{}", all - 1)]);
    assert_eq!(candidates(&plan), names(["acme/m20"]));
    assert_eq!(row(&plan, "acme/m20")["rule"], "older_than");
}

#[test]
fn a_budget_that_cannot_be_met_names_nothing_and_says_what_is_missing() {
    let lab = three();
    let _ = lab.run(["pin", "acme/m200", "acme/m100"]).success();
    let out = lab.run(["clean", "preview", "--json", "--max-size", "1kB"]).expect_code(1);
    let plan = out.json();
    assert_valid(&lab, "plan", &plan);
    assert_eq!(candidates(&plan), names([]));
    let short = &plan["shortfalls"][0];
    assert_eq!(short["rule"], "max_size");
    let bytes = |key: &str| short[key].as_u64().expect("bytes");
    assert_eq!(bytes("now_bytes"), used(&lab));
    assert_eq!(bytes("needed_bytes"), bytes("now_bytes") - 1000);
    assert_eq!(bytes("possible_bytes"), total(&lab.preview(&["--models", "acme/m20"])));
    assert_eq!(bytes("missing_bytes"), bytes("needed_bytes") - bytes("possible_bytes"));
    let out = lab.run(["clean", "preview", "--free", "8EB"]).expect_code(1);
    assert!(out.stderr.contains("cannot be met") && out.stderr.contains("missing"), "{out}");
    let _ = lab.run(["clean", "preview", "--max-size", "0"]).expect_code(2);
    let _ = lab.run(["clean", "preview", "--free", "1parsec"]).expect_code(2);
}

#[test]
fn free_takes_what_is_missed_least() {
    let (lab, folder) = Lab::with_folder();
    folder.model("made-here", &four_bit(1).files());
    let _ = lab.hub.repo("acme/small").snapshot(&four_bit(2).files()).with_ref("main");
    let _ =
        lab.hub.repo("acme/big").snapshot(&ModelSpec::llama().hidden(512).seed(3).files()).with_ref("main");
    lab.hub.repo("acme/big").partial(&sha256_hex(b"dead"), "0a0a0a0a", &[1; 200_000]);
    old_below(lab.hub.root(), 50 * DAY);
    old_below(folder.root(), 300 * DAY);
    lab.sync_any();
    let stores = lab.json(["stores"]);
    let free = stores[0]["filesystem"]["free_bytes"].as_u64().expect("bytes");
    if free > 1 << 50 {
        return;
    }
    // Others write to the disk meanwhile: the target lies far enough from what is free.
    let ask = |more: u64, args: &[&str]| {
        let free = lab.json(["stores"])[0]["filesystem"]["free_bytes"].as_u64().expect("bytes");
        let target = format!("{}", free + more);
        let mut words = vec!["clean", "preview", "--json", "--free", &target];
        words.extend(args);
        lab.run(words).json()
    };
    let plan = ask(1, &[]);
    if let [first] = plan["candidates"].as_array().expect("rows").as_slice() {
        assert!(first["path"].as_str().is_some_and(|path| path.ends_with(".incomplete")), "{plan:#}");
        assert_eq!(first["rule"], "free");
    }
    let plan = ask(1 << 50, &["--include-irreplaceable"]);
    assert_eq!(plan["shortfalls"][0]["rule"], "free", "{plan:#}");
    assert_eq!(candidates(&plan), names([]));
    // The folder's own model is the oldest and the last.
    let all = total(&lab.preview(&["--models", "*", "--include-irreplaceable"]));
    let plan = ask(all / 2, &["--include-irreplaceable"]);
    let found = candidates(&plan);
    assert!(!found.contains("made-here") || found.contains("acme/big"), "{plan:#}");
}

#[test]
fn shared_blobs_are_priced_as_sets() {
    let mut lab = Lab::new();
    lab.hub = lab.hub.shared();
    let files = four_bit(1).hidden(512).files();
    let one = lab.hub.repo("acme/one").snapshot(&files).with_ref("main");
    let _ = lab.hub.repo("acme/two").snapshot(&files).with_ref("main");
    let _ = lab.hub.repo("acme/new").snapshot(&four_bit(2).files()).with_ref("main");
    old_below(lab.hub.root(), 50 * DAY);
    old_below(&lab.hub.repo("acme/new").path(), DAY);
    lab.sync();
    let payload = one.blob_of("model.safetensors").metadata().expect("the payload").len();
    let target = used(&lab) - payload;
    // Neither frees the payload; both together do.
    let plan = lab.preview(&["--max-size", &format!("{target}")]);
    assert_eq!(candidates(&plan), names(["acme/one", "acme/two"]), "{plan:#}");
    assert!(total(&plan) >= payload);
    // Where one of them stays, the payload does.
    let _ = lab.run(["pin", "acme/two"]).success();
    let out = lab.run(["clean", "preview", "--json", "--max-size", &format!("{target}")]).expect_code(1);
    assert_eq!(candidates(&out.json()), names([]));
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A store of some repos that share some of their blobs, with some of them pinned.
fn random_store(lab: &Lab, hub: &HubStore, random: &mut Random) -> BTreeSet<String> {
    let mut pins = BTreeSet::new();
    for number in 0..4 + random.below(4) {
        let name = format!("acme/r{number}");
        let repo = hub.repo(&name);
        for _ in 0..1 + random.below(2) {
            let mut files = four_bit(random.below(4)).files();
            files.push(("note.txt".to_owned(), vec![b'n'; random.below(60_000) as usize]));
            let snapshot = repo.snapshot(&files).with_ref("main");
            old_below(&snapshot.path(), Duration::from_secs(random.below(300) * 86_400));
        }
        old_below(&repo.path(), Duration::from_secs((20 + random.below(300)) * 86_400));
        if random.below(4) == 0 {
            pins.insert(name);
        }
    }
    lab.run(["sync", "--fast"]);
    for name in &pins {
        let _ = lab.run(["pin", name]).success();
    }
    pins
}

#[test]
fn budgets_are_met_with_as_little_as_can_be() {
    for seed in 0..6 {
        let mut random = Random(seed * 77 + 5);
        let mut lab = Lab::new();
        if seed % 2 == 0 {
            lab.hub = lab.hub.shared();
        }
        let hub = lab.hub.clone();
        let pins = random_store(&lab, &hub, &mut random);
        let all = used(&lab);
        for round in 0..6 {
            let fits = all * (1 + random.below(9)) / 10;
            let preview = |option: &str, target: u64| {
                lab.run(["clean", "preview", "--json", option, &target.to_string()]).json()
            };
            let free = |value: &Value| value["filesystem"]["free_bytes"].as_u64().expect("bytes");
            // Others use the disk meanwhile: what is free is what the plan saw.
            let (plan, needed) = if round % 2 == 0 {
                (preview("--max-size", fits), all - fits)
            } else {
                let target = free(&lab.json(["stores"])[0]) + fits;
                let plan = preview("--free", target);
                let needed = target.saturating_sub(free(&plan["stores"][0]));
                (plan, needed)
            };
            let rows = plan["candidates"].as_array().expect("rows");
            assert!(rows.iter().all(|row| row["model"].as_str().is_none_or(|name| !pins.contains(name))));
            if let Some(short) = plan["shortfalls"].get(0) {
                assert!(rows.is_empty());
                let possible = short["possible_bytes"].as_u64().expect("bytes");
                assert!(possible < needed, "{short}");
                continue;
            }
            if !rows.iter().all(|row| row["model"].is_string()) {
                continue;
            }
            // Pricing by name comes to the same.
            let name = |row: &Value| {
                let text = |key: &str| row[key].as_str().expect("text").to_owned();
                format!("{}@{}", text("repo_id"), text("revision"))
            };
            let price = |names: Vec<String>| {
                if names.is_empty() {
                    return 0;
                }
                let args: Vec<&str> = ["--no-policies", "--models"]
                    .into_iter()
                    .chain(names.iter().map(String::as_str))
                    .collect();
                let plan = lab.preview(&args);
                assert_eq!(plan["candidates"].as_array().map(Vec::len), Some(names.len()), "{plan:#}");
                total(&plan)
            };
            assert_eq!(total(&plan), price(rows.iter().map(name).collect()), "{plan:#}");
            assert!(total(&plan) >= needed, "it is met");
            // Without the last of them, which was used last, it does not. (Snapshots of a repo were used at one time.)
            let last = rows.iter().filter_map(|row| row["last_used"].as_str()).max();
            let misses = |row: &&Value| {
                let fewer = rows.iter().filter(|other| other != row).map(name).collect();
                price(fewer) < needed
            };
            let mut latest = rows.iter().filter(|row| row["last_used"].as_str() == last);
            assert!(rows.is_empty() || latest.any(|row| misses(&row)), "{plan:#}");
        }
    }
}
