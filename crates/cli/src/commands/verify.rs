//! `mlxman verify`: does each model load and generate, and how fast. The level `integrity` is [`super::integrity`].

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use mlxman_clean::filter::quantity::{parse_age, parse_bytes};
use mlxman_manifest::registry::{Contents, Registry, Row, Survey, SyncOptions};
use mlxman_manifest::{
    AnswersCompared, HealthStatus, Verdict as Found, Verification, VerifiedLevel, VerifiedModel,
};
use mlxman_store::{FoundModel, RepoKind, Scan, StoreKind, StoreSpec, Use};
use mlxman_verify::protocol::{DtypeChoice, Level, Measure};
use mlxman_verify::{Answering, Base, KeptAnswers, Launch, Outcome, Plan, Reference, Results, Task, machine};

use crate::args::{self, Filters, Verify};
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::progress::{Live, Watcher, catch_interrupts, line_of};
use crate::select::{filter_set, matching, one, tell_unknown};
use crate::table::{bytes, number, plural, rate, render, text};

/// How long a worker may take to start: the first one reads MLX from the disk.
pub(super) const STARTUP: Duration = Duration::from_secs(60);

/// A model that was chosen: where it lies, and its row if the registry has one.
pub(super) struct Chosen {
    spec: StoreSpec,
    key: String,
    /// Its directory, where that was named and the registry does not know it.
    dir: Option<PathBuf>,
    row: Option<Row>,
    /// Whether somebody named it: then it is verified whatever it is.
    named: bool,
}

impl Chosen {
    fn place(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| self.spec.root().join(&self.key))
    }
}

pub(super) fn run(args: &Verify, context: &Context) -> Result<Verdict> {
    if args.list_families {
        return list_families(context);
    }
    let timeout = duration("--timeout", &args.timeout)?;
    let memory_limit = match &args.memory_limit {
        Some(text) => {
            Some(parse_bytes(text).map_err(|error| wrong(format!("--memory-limit {text}: {error}")))?)
        }
        None => machine::available_memory(),
    };
    let answering = answering(args)?;
    if args.level == Some(args::Level::Integrity) {
        return super::integrity::run(args, context);
    }
    for (given, name) in [(args.again, "--again"), (args.budget.is_some(), "--budget")] {
        if given {
            return Err(wrong(format!("{name} goes with --level integrity")));
        }
    }
    catch_interrupts();
    let (chosen, contents) = choose(args, context)?;
    let (specs, options) = looking(&chosen, context);
    let survey = context.registry.survey(&specs, &context.catalog()?, &options)?;
    let Tasks { tasks, rows, order, unread } = tasks(&chosen, &survey, context);
    let limit = context.store_limit;
    let base = |named: &str, adapter: &Path| base(&contents, named, adapter, limit);
    let plan = Plan {
        level: args.level.and_then(level),
        strict: args.strict,
        dtype: dtype(args.dtype),
        measure: measure(args),
        timeout,
        memory_limit,
        jobs: usize::from(args.jobs.unwrap_or(1)),
        answering,
        worker: Ok(launch(context, timeout)),
        base: &base,
        now: context.now,
    };
    let unkept = AtomicBool::new(false);
    let (registry, printer, now) = (&context.registry, &context.printer, context.now);
    let done = |at: usize, outcome: &Outcome| {
        if let Err(error) = keep(registry, outcome, rows[at], tasks[at].recorded.as_deref()) {
            printer.warning(&format!("what was found of {} is not kept: {error}", outcome.result.model));
            unkept.store(true, Ordering::Relaxed);
        }
        if let Some(used) = used(&outcome.result, tasks[at].found, now)
            && let Err(error) = registry.record_use(&used)
        {
            printer.warning(&format!("the use of {} is not recorded: {error}", outcome.result.model));
        }
    };
    let live = Live::new(&context.printer, tasks.iter().map(|task| task.model.clone()).collect(), &done);
    if !keep_absent(&order, context) {
        unkept.store(true, Ordering::Relaxed);
    }
    let run = mlxman_verify::run(&tasks, &plan, &live);
    let interrupted = run.outcomes.iter().any(|outcome| outcome.interrupted);
    let results = in_order(order, run.outcomes.into_iter().map(|outcome| outcome.result));
    let of = |found: Found| results.iter().filter(|result| result.verification.verdict == found).count();
    let (failed, skipped) = (of(Found::Fail), of(Found::Skipped));
    // What was asked for and not done is a problem; what a machine does not allow, where nothing was asked for, is none.
    let problems = failed > 0
        || ((args.level.is_some() || args.answers.is_some()) && skipped > 0)
        || interrupted
        || run.broken.is_some()
        || unread > 0
        || unkept.into_inner();
    if context.printer.json {
        context.printer.json(&Results::new(results))?;
    } else {
        table(&results, context)?;
        if !results.is_empty() {
            let mut line = format!("{}: {} passed", plural(results.len(), "model"), of_pass(&results));
            for (count, word) in [(failed, "failed"), (skipped, "skipped")] {
                if count > 0 {
                    line = format!("{line}, {count} {word}");
                }
            }
            context.printer.status(&if interrupted { format!("{line}; interrupted") } else { line });
        }
    }
    Ok(if tasks.is_empty() && unread > 0 { Verdict::Failed } else { Verdict::of(problems) })
}

/// The models that are to be verified.
pub(super) struct Tasks<'a> {
    pub(super) tasks: Vec<Task<'a>>,
    /// The row of each, where the registry has one.
    pub(super) rows: Vec<Option<&'a Row>>,
    /// In the order in which they were named: the row of one that cannot be verified, `None` for the next task's.
    pub(super) order: Vec<Option<VerifiedModel>>,
    /// Stores that cannot be read.
    pub(super) unread: usize,
}

pub(super) fn tasks<'a>(chosen: &'a [Chosen], survey: &'a Survey, context: &Context) -> Tasks<'a> {
    let mut all = Tasks { tasks: Vec::new(), rows: Vec::new(), order: Vec::new(), unread: 0 };
    for store in &survey.stores {
        if let Err(error) = &store.scan {
            context.printer.warning(&error.to_string());
            all.unread += 1;
        }
    }
    for one in chosen {
        let Some(store) = survey.stores.iter().find(|store| store.spec == one.spec) else { continue };
        let found = match &store.scan {
            Ok(scan) => found(one, scan).map(|found| (scan, found)).ok_or_else(|| no_model(one, scan)),
            Err(error) => Err((Found::Skipped, error.to_string())),
        };
        match found {
            Ok((_, found))
                if !one.named && found.repo.as_ref().is_some_and(|repo| repo.kind != RepoKind::Model) => {}
            Ok((scan, found)) => {
                all.tasks.push(task(one, scan, found, context));
                all.rows.push(one.row.as_ref());
                all.order.push(None);
            }
            Err((verdict, reason)) => {
                all.order.push(Some(not_verified(one, verdict, reason, context)));
            }
        }
    }
    if all.order.is_empty() && !context.printer.json {
        context.printer.status("there is no model to verify");
    }
    all
}

/// Tells of those that cannot be verified, and keeps that; gives whether it could be kept.
pub(super) fn keep_absent(order: &[Option<VerifiedModel>], context: &Context) -> bool {
    let mut all_kept = true;
    for result in order.iter().flatten() {
        context.printer.status(&line_of(result));
        // Nothing is there that a manifest could be about.
        if let Err(error) = context.registry.keep_verification(result, None) {
            context.printer.warning(&format!("what was found of {} is not kept: {error}", result.model));
            all_kept = false;
        }
    }
    all_kept
}

/// All results in the order in which their models were named.
pub(super) fn in_order(
    order: Vec<Option<VerifiedModel>>,
    mut outcomes: impl Iterator<Item = VerifiedModel>,
) -> Vec<VerifiedModel> {
    order.into_iter().filter_map(|absent| absent.or_else(|| outcomes.next())).collect()
}

fn of_pass(results: &[VerifiedModel]) -> usize {
    results.iter().filter(|result| result.verification.verdict == Found::Pass).count()
}

/// The models that are meant, after a fast look that gives each a manifest to write into.
pub(super) fn choose(args: &Verify, context: &Context) -> Result<(Vec<Chosen>, Contents)> {
    let mut dirs: Vec<Option<PathBuf>> = Vec::new();
    // What is no UTF-8 is no model's name; a directory may have such a one.
    let asked: Vec<(&OsStr, Option<&str>)> =
        args.model.iter().map(|asked| (asked.as_os_str(), asked.to_str())).collect();
    for (path, name) in &asked {
        let is_path = name.is_none_or(|name| {
            ["/", "./", "../", "~"].iter().any(|start| name.starts_with(start)) || matches!(name, "." | "..")
        });
        dirs.push(if is_path { Some(directory(path, context)?) } else { None });
    }
    let all_are_paths = !dirs.is_empty() && dirs.iter().all(Option::is_some);
    let stores = match context.some_stores() {
        Ok(stores) => stores,
        Err(_) if all_are_paths => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut only = Vec::new();
    for ((_, name), dir) in asked.iter().zip(&dirs) {
        match dir {
            None => only.extend(name.map(str::to_owned)),
            Some(dir) => only.extend(inside(dir, &stores).map(|(spec, key)| format!("{}:{key}", spec.id()))),
        }
    }
    if args.model.is_empty() || !only.is_empty() {
        let watcher = Watcher::new(&context.printer);
        let options = SyncOptions { only, ..context.looking() };
        let synced = context.registry.sync(&stores, &context.catalog()?, &options, &watcher);
        watcher.finish();
        synced?;
    }
    let contents = context.contents()?;
    let filters = filter_set(context, &args.filters)?;
    if args.model.is_empty() {
        let rows = matching(context, &contents, &filters);
        tell_unknown(context, &contents, &filters)?;
        let here = rows.into_iter().filter(|row| row.summary.present && row.away.is_none());
        let named = !(args.filters.args(Vec::new()) == Filters::default().args(Vec::new()));
        return Ok((here.filter_map(|row| of_row(row, named)).collect(), contents));
    }
    let mut chosen: Vec<Chosen> = Vec::new();
    for ((path, name), dir) in asked.into_iter().zip(dirs) {
        let dir = match (dir, name) {
            (Some(dir), _) => dir,
            (None, None) => directory(path, context)?,
            (None, Some(name)) => match one(context, &contents, name) {
                Ok(row) => {
                    chosen.extend(of_row(row, true));
                    continue;
                }
                // A name of a model comes first; a directory of that name is as good where there is none.
                Err(_) if Path::new(path).is_dir() => directory(path, context)?,
                Err(error) => return Err(error),
            },
        };
        let known = inside(&dir, &stores).and_then(|(spec, key)| {
            contents.rows.iter().find(|row| row.summary.store == spec.id() && row.summary.key == key)
        });
        chosen.extend(match known {
            Some(row) => of_row(row, true),
            None => Some(outside(dir)),
        });
    }
    let matches = |row: &Row| filters.matches(&mlxman_clean::facts_of(&row.summary), context.now);
    // A name and a path, or two names, may be one model's: it is verified once.
    let mut places = BTreeSet::new();
    chosen.retain(|one| {
        (filters.is_empty() || one.row.as_ref().is_none_or(matches)) && places.insert(one.place())
    });
    Ok((chosen, contents))
}

fn directory(asked: &OsStr, context: &Context) -> Result<PathBuf> {
    let path = context.places.expand(Path::new(asked));
    let dir = fs_err::canonicalize(&path).map_err(|error| wrong(error.to_string()))?;
    if !dir.is_dir() {
        return Err(wrong(format!("{} is no directory: name the one that the model is in", path.display())));
    }
    Ok(dir)
}

/// The store that a directory lies in, and where in it.
fn inside<'a>(dir: &Path, stores: &'a [StoreSpec]) -> Option<(&'a StoreSpec, String)> {
    let containing = stores.iter().filter_map(|spec| Some((spec, dir.strip_prefix(spec.root()).ok()?)));
    let (spec, key) = containing.min_by_key(|(_, key)| key.components().count())?;
    Some((spec, key.to_str()?.to_owned()))
}

/// A directory that no store of the registry has: a store of its own, or the snapshot of a hub cache.
fn outside(dir: PathBuf) -> Chosen {
    let name =
        |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let repo = dir.parent().and_then(Path::parent);
    let is_snapshot = name(dir.parent()).as_deref() == Some("snapshots")
        && name(repo).is_some_and(|name| name.starts_with("models--"));
    let root = repo.and_then(Path::parent).filter(|_| is_snapshot);
    let spec = match root {
        Some(root) => StoreSpec::verbatim(StoreKind::Hub, root),
        None => StoreSpec::verbatim(StoreKind::Folder, &dir),
    };
    let key = dir.strip_prefix(spec.root()).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    Chosen { spec, key, dir: Some(dir), row: None, named: true }
}

fn of_row(row: &Row, named: bool) -> Option<Chosen> {
    let spec = row.summary.store.parse::<StoreSpec>().ok()?;
    Some(Chosen { spec, key: row.summary.key.clone(), dir: None, row: Some(row.clone()), named })
}

/// The stores to look at for these models, and nothing else in them.
pub(super) fn looking(chosen: &[Chosen], context: &Context) -> (Vec<StoreSpec>, SyncOptions) {
    let mut specs: Vec<StoreSpec> = Vec::new();
    for one in chosen {
        if !specs.contains(&one.spec) {
            specs.push(one.spec.clone());
        }
    }
    let only = chosen.iter().map(|one| format!("{}:{}", one.spec.id(), one.key)).collect();
    (specs, SyncOptions { only, ..context.looking() })
}

fn found<'a>(one: &Chosen, scan: &'a Scan) -> Option<&'a FoundModel> {
    scan.models.iter().find(|model| match &one.dir {
        Some(dir) => scan.dir_of(model) == *dir,
        None => model.key == one.key,
    })
}

/// Why what was named is no model, for people.
fn no_model(one: &Chosen, scan: &Scan) -> (Found, String) {
    let place = one.place();
    let Some(dir) = &one.dir else {
        let sync = "it was there a moment ago: `mlxman sync --fast` looks anew";
        return (Found::Fail, format!("there is no model in {} any more; {sync}", place.display()));
    };
    let config = dir.join("config.json");
    let (files, models): (Vec<_>, Vec<_>) = scan.models.iter().partition(|model| model.is_file);
    let name = |model: Option<&&FoundModel>| model.map_or(String::new(), |model| model.name.clone());
    let dir = dir.display();
    let reason = if fs_err::symlink_metadata(&config).is_ok_and(|meta| meta.is_dir()) {
        format!("{} is a directory, and should be a file: download the model again", config.display())
    } else if !files.is_empty() {
        format!(
            "there are weights ({}) and no config.json in {dir}, so nobody can tell what they are of: download the model \
             again, or put its config.json there",
            name(files.first())
        )
    } else if !models.is_empty() {
        format!(
            "there is no config.json in {dir}, but {} below it: name one of them (such as {}), or give the directory as a \
             store, --store folder={dir}",
            plural(models.len(), "model"),
            name(models.first())
        )
    } else {
        format!(
            "there is neither a config.json nor are there weights in {dir}: name the directory that the model is in"
        )
    };
    (Found::Fail, reason)
}

/// The row of a model that could not be looked at.
fn not_verified(one: &Chosen, verdict: Found, reason: String, context: &Context) -> VerifiedModel {
    let place = one.place();
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned());
    let summary = one.row.as_ref().map(|row| &row.summary);
    VerifiedModel {
        model: match summary {
            Some(summary) => summary.model.clone(),
            None => name.unwrap_or_else(|| place.display().to_string()),
        },
        path: place.display().to_string(),
        store: summary.map(|summary| summary.store.clone()),
        key: summary.map(|summary| summary.key.clone()),
        verification: Verification {
            reason: Some(reason),
            ..Verification::new(VerifiedLevel::Structure, verdict, context.now, String::new())
        },
    }
}

fn task<'a>(one: &Chosen, scan: &'a Scan, found: &'a FoundModel, context: &Context) -> Task<'a> {
    let model = match (&one.row, &one.dir) {
        (Some(row), _) => row.summary.model.clone(),
        (None, Some(dir)) if found.repo.is_none() => {
            dir.file_name().map_or_else(|| found.name.clone(), |name| name.to_string_lossy().into_owned())
        }
        _ => found.name.clone(),
    };
    Task {
        path: scan.dir_of(found),
        store: one.row.as_ref().map(|row| row.summary.store.clone()),
        recorded: Some(context.registry.answers_file(&one.spec.id(), &one.key, &model)),
        model,
        scan,
        found,
    }
}

/// The model that an adapter is made for, where it is here and whole: by its name, or by its directory's path, absolute or
/// from the adapter's own directory.
fn base(contents: &Contents, named: &str, adapter: &Path, limit: Duration) -> Option<Base> {
    let is_path = ["/", "./", "../"].iter().any(|start| named.starts_with(start));
    if !is_path && let Some(base) = base_of(contents, |row| row.summary.answers_to(named)) {
        return Some(base);
    }
    let (dir, bytes) = base_in(adapter.join(named), limit)?;
    let known = |row: &Row| {
        let spec = row.summary.store.parse::<StoreSpec>();
        spec.is_ok_and(|spec| spec.root().join(&row.summary.key) == dir)
    };
    // What the registry knows of it counts for more than that there is something.
    match contents.rows.iter().any(|row| row.away.is_none() && known(row)) {
        true => base_of(contents, known),
        false => Some(Base { path: dir, bytes }),
    }
}

/// Of the models that are meant, those that are here and whole: the one that a loader gets.
fn base_of(contents: &Contents, is_meant: impl Fn(&Row) -> bool) -> Option<Base> {
    let mut rows: Vec<&Row> = contents
        .rows
        .iter()
        .filter(|row| row.summary.present && row.away.is_none() && is_meant(row))
        .filter(|row| row.summary.health == HealthStatus::Complete)
        .collect();
    rows.sort_by_key(|row| row.summary.current == Some(false));
    let summary = &rows.first()?.summary;
    let spec = summary.store.parse::<StoreSpec>().ok()?;
    Some(Base { path: spec.root().join(&summary.key), bytes: summary.size_bytes })
}

/// The model's directory at a path that a file names, under its one name, and the bytes of its files. It is read and
/// nothing else; a volume that does not answer is given up.
fn base_in(path: PathBuf, limit: Duration) -> Option<(PathBuf, u64)> {
    let (sender, found) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let look = || {
            let dir = fs_err::canonicalize(&path).ok()?;
            let is_model = fs_err::metadata(dir.join("config.json")).ok()?.is_file();
            let files = fs_err::read_dir(&dir).ok()?.flatten();
            // Through links, for a snapshot has nothing else.
            let sizes = files.filter_map(|file| fs_err::metadata(file.path()).ok());
            let bytes = sizes.filter(|meta| meta.is_file()).map(|meta| meta.len()).sum();
            is_model.then_some((dir, bytes))
        };
        let _ = sender.send(look());
    });
    found.recv_timeout(limit).ok()?
}

/// The use that a verification made of a model: reading its files is none, generating with it is one.
fn used(result: &VerifiedModel, found: &FoundModel, now: DateTime<Utc>) -> Option<Use> {
    let verification = &result.verification;
    let generated = verification.level == VerifiedLevel::Generate && verification.verdict == Found::Pass;
    let store = result.store.clone().filter(|_| generated)?;
    Some(Use { time: now, store, key: found.key.clone(), by: "verify".to_owned() })
}

/// Writes what was found into the history and the manifest, and the answers that were recorded.
fn keep(registry: &Registry, outcome: &Outcome, row: Option<&Row>, recorded: Option<&Path>) -> Result<()> {
    if outcome.interrupted {
        return Ok(());
    }
    registry.keep_verification(&outcome.result, row)?;
    if let (Some(answers), Some(path)) = (&outcome.answers, recorded) {
        let mut text = serde_json::to_vec_pretty(answers)?;
        text.push(b'\n');
        registry.write_answers(path, &text)?;
    }
    Ok(())
}

fn list_families(context: &Context) -> Result<Verdict> {
    let mut names: Vec<&str> = mlxman_verify::families().collect();
    names.sort_unstable();
    if context.printer.json {
        context.printer.json(&names)?;
    } else {
        context.printer.data(&format!("{}\n", names.join("\n")))?;
    }
    Ok(Verdict::Fine)
}

pub(super) fn launch(context: &Context, timeout: Duration) -> Launch {
    let preload = context.places.preload().map(|preload| ("LD_PRELOAD".into(), preload));
    Launch {
        program: context.places.worker(),
        env: preload.into_iter().collect(),
        startup: STARTUP.min(timeout.max(STARTUP / 12)),
    }
}

fn answering(args: &Verify) -> Result<Answering> {
    if let Some(level) = args.level.filter(|level| *level != args::Level::Generate) {
        let word = self::level(level).map_or(VerifiedLevel::Integrity, VerifiedLevel::from).word();
        let asked = [("--answers", args.answers.is_some()), ("--record-answers", args.record_answers)];
        if let Some((option, _)) = asked.into_iter().find(|(_, is_asked)| *is_asked) {
            return Err(wrong(format!(
                "{option} needs the level generate, and --level {word} ends before a model answers anything: leave \
                 --level out, or say --level generate"
            )));
        }
    }
    Ok(match &args.answers {
        None if args.record_answers => Answering::Record,
        None => Answering::Not,
        Some(auto) if auto.as_os_str() == "auto" => Answering::Auto,
        Some(path) => {
            let kept = KeptAnswers::read(path)
                .map_err(|why| wrong(format!("--answers {}: {why}", path.display())))?;
            Answering::With(Box::new(Reference { path: path.clone(), kept }))
        }
    })
}

pub(super) fn duration(option: &str, text: &str) -> Result<Duration> {
    // Ages are whole seconds; a time limit may be less than one.
    let number = |text: &str| text.trim_end().parse::<f64>().ok();
    let milliseconds = || number(text.strip_suffix("ms")?).map(|number| number / 1000.0);
    let seconds = || number(text.strip_suffix('s').unwrap_or(text));
    let seconds = match milliseconds().or_else(seconds) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => {
            let age = parse_age(text).map_err(|error| wrong(format!("{option} {text}: {error}")))?;
            age.to_std().ok()
        }
    };
    seconds
        .filter(|time| !time.is_zero())
        .ok_or_else(|| wrong(format!(
                "{option} {text}: that is no time to wait; give one that is longer than nothing and has an end, such as 30 (seconds), 300ms or 10m"
            )))
}

/// The level for a worker; none for what needs none.
fn level(level: args::Level) -> Option<Level> {
    match level {
        args::Level::Structure => Some(Level::Structure),
        args::Level::Integrity => None,
        args::Level::Load => Some(Level::Load),
        args::Level::Generate => Some(Level::Generate),
    }
}

fn dtype(dtype: args::Dtype) -> DtypeChoice {
    match dtype {
        args::Dtype::Auto => DtypeChoice::Auto,
        args::Dtype::Checkpoint => DtypeChoice::Checkpoint,
        args::Dtype::Float32 => DtypeChoice::Float32,
        args::Dtype::Bfloat16 => DtypeChoice::Bfloat16,
        args::Dtype::Float16 => DtypeChoice::Float16,
    }
}

/// What to measure: that of `mlx_lm.benchmark` is not cut short by its own clock, only by `--timeout`.
fn measure(args: &Verify) -> Measure {
    let (quick, timeout) = (Measure::default(), 86_400.0);
    let usual = match args.bench {
        true => Measure { prompt_tokens: 512, generated_tokens: 128, trials: 5, seconds: timeout },
        false => quick,
    };
    Measure {
        prompt_tokens: args.prompt_tokens.unwrap_or(usual.prompt_tokens),
        generated_tokens: args.generated_tokens.unwrap_or(usual.generated_tokens),
        trials: args.trials.unwrap_or(usual.trials),
        seconds: if args.trials.is_some() { timeout } else { usual.seconds },
    }
}

fn table(results: &[VerifiedModel], context: &Context) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let columns = [
        text("MODEL", 0),
        text("VERDICT", 0),
        text("LEVEL", 0),
        number("PROMPT T/S", 3),
        number("GENERATE T/S", 0),
        text("DTYPE", 0),
        text("DEVICE", 5),
        number("MEMORY", 4),
        number("LOAD S", 6),
        text("ANSWERS", 2),
        text("WHY", 1),
    ];
    let cells: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let found = &result.verification;
            let why = found.reason.iter().chain(&found.instead).chain(&found.notes).cloned();
            vec![
                result.model.clone(),
                found.verdict.word().to_owned(),
                found.level.word().to_owned(),
                rate(found.prompt_tps),
                rate(found.generation_tps),
                found.dtype.clone().unwrap_or_default(),
                found.device.clone().unwrap_or_default(),
                found.peak_memory_bytes.map(bytes).unwrap_or_default(),
                found.load_seconds.map(|seconds| format!("{seconds:.1}")).unwrap_or_default(),
                found.answers.as_ref().map(answers).unwrap_or_default(),
                why.collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    context.printer.data(&render(&context.printer, &columns, &cells))?;
    Ok(())
}

/// How known answers compare, in short.
pub(super) fn answers(compared: &AnswersCompared) -> String {
    let error = compared.max_relative_error.map(|error| format!("{error:.1e} off"));
    let tokens = (compared.greedy_total > 0)
        .then(|| format!("{} of {} tokens", compared.greedy_matched, compared.greedy_total));
    let parts: Vec<String> = error.into_iter().chain(tokens).collect();
    match (parts.is_empty(), compared.top10_matched) {
        (false, _) => parts.join(", "),
        (true, Some(matched)) => format!("{matched} of the likeliest tokens"),
        (true, None) => "nothing compared".to_owned(),
    }
}
