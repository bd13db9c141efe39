//! The moving lines while weights are hashed and models verified, and Ctrl-C.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mlxman_manifest::registry::{Checks, SyncObserver};
use mlxman_manifest::{Verdict, VerifiedModel};
use mlxman_verify::integrity::{IntegrityObserver, IntegrityOutcome};
use mlxman_verify::{Observer, Outcome};

use crate::printer::{Printer, plain};
use crate::table::{bytes, rate};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether the stores are being read, when nothing is lost by an end.
static LOOKING: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks for an orderly end, which keeps what was hashed and leaves no temporary file; while the
/// stores are being read, and the second time, it ends the process at once.
pub(crate) fn catch_interrupts() {
    // Where no handler can be set, Ctrl-C ends the process, as without one.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) || LOOKING.load(Ordering::SeqCst) {
            mlxman_verify::kill_all();
            #[expect(
                clippy::exit,
                reason = "what a signal without a handler does; 130 is what shells make of it"
            )]
            std::process::exit(130);
        }
    });
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Tells of a sync on stderr.
pub(crate) struct Watcher<'a> {
    printer: &'a Printer,
    bar: Mutex<Option<ProgressBar>>,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(printer: &'a Printer) -> Self {
        Watcher { printer, bar: Mutex::new(None) }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

impl SyncObserver for Watcher<'_> {
    fn looking(&self, now: bool) {
        LOOKING.store(now, Ordering::SeqCst);
    }

    fn hashing(&self, done: u64, total: u64, file: &str) {
        if !self.printer.shows_progress() || total == 0 {
            return;
        }
        let mut slot = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        move_on(&mut slot, "hashing", done, total, file);
    }

    fn comparing(&self, model: &str, base: &str) {
        self.finish();
        if self.printer.shows_progress() {
            self.printer.status(&format!("comparing {model} with {base}"));
        }
    }

    fn waiting(&self) {
        self.printer.status("another mlxman is writing the registry; waiting for it to finish");
    }

    fn interrupted(&self) -> bool {
        interrupted()
    }
}

/// Tells of a verification on stderr: a moving line for each model at hand, and a line for each that is done.
pub(crate) struct Live<'a> {
    printer: &'a Printer,
    models: Vec<String>,
    bars: MultiProgress,
    at_hand: Mutex<BTreeMap<usize, ProgressBar>>,
    done: &'a (dyn Fn(usize, &Outcome) + Sync),
}

impl<'a> Live<'a> {
    /// `done` is called when a model is done, from whatever thread did it.
    pub(crate) fn new(
        printer: &'a Printer,
        models: Vec<String>,
        done: &'a (dyn Fn(usize, &Outcome) + Sync),
    ) -> Self {
        Live { printer, models, bars: MultiProgress::new(), at_hand: Mutex::default(), done }
    }

    fn at_hand(&self) -> MutexGuard<'_, BTreeMap<usize, ProgressBar>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Live<'_> {
    fn started(&self, at: usize) {
        if !self.printer.shows_progress() {
            return;
        }
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg:.dim} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_prefix(plain(&self.models[at]).into_owned());
        bar.set_message("structure");
        bar.enable_steady_tick(Duration::from_millis(120));
        self.at_hand().insert(at, bar);
    }

    fn phase(&self, at: usize, phase: &str, done: u64, total: u64) {
        let bars = self.at_hand();
        let Some(bar) = bars.get(&at) else { return };
        let phase = plain(phase).replace('_', " ");
        bar.set_message(match (phase.as_str(), total) {
            (_, 0) => phase,
            ("load", _) => format!("{phase} {} of {}", bytes(done), bytes(total)),
            _ => format!("{phase} {done} of {total} tokens"),
        });
    }

    fn finished(&self, at: usize, outcome: &Outcome) {
        if let Some(bar) = self.at_hand().remove(&at) {
            bar.finish_and_clear();
        }
        let line = line_of(&outcome.result);
        self.bars.suspend(|| {
            self.printer.status(&line);
            (self.done)(at, outcome);
        });
    }

    fn interrupted(&self) -> bool {
        interrupted()
    }
}

/// What came of a model, in a line.
pub(crate) fn line_of(result: &VerifiedModel) -> String {
    let VerifiedModel { model, verification, .. } = result;
    let mut parts = vec![verification.level.word().to_owned()];
    if let Some(tps) = verification.generation_tps {
        // A figure is nothing without the type and the device that it was measured with.
        let with: Vec<&str> =
            [&verification.dtype, &verification.device].into_iter().flatten().map(String::as_str).collect();
        parts.push(format!("{} tokens/s ({})", rate(Some(tps)), with.join(", ")));
    }
    parts.extend(verification.reason.iter().chain(&verification.instead).cloned());
    format!("{:<8} {model}: {}", verification.verdict.word(), parts.join("; "))
}

/// Tells of contents being read on stderr: one moving line for all, and a line for each model that is no pass.
pub(crate) struct Reading<'a> {
    printer: &'a Printer,
    bar: Mutex<Option<ProgressBar>>,
    done: &'a (dyn Fn(usize, &IntegrityOutcome) + Sync),
    keep: &'a (dyn Fn(&mut Checks) + Sync),
}

impl<'a> Reading<'a> {
    /// `done` is called when a model is done, and `keep` when there is something to be kept.
    pub(crate) fn new(
        printer: &'a Printer,
        done: &'a (dyn Fn(usize, &IntegrityOutcome) + Sync),
        keep: &'a (dyn Fn(&mut Checks) + Sync),
    ) -> Self {
        Reading { printer, bar: Mutex::new(None), done, keep }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }
}

impl IntegrityObserver for Reading<'_> {
    fn reading(&self, done: u64, total: u64, file: &str) {
        if self.printer.shows_progress() && total > 0 {
            move_on(&mut self.bar(), "reading", done, total, file);
        }
    }

    fn finished(&self, at: usize, outcome: &IntegrityOutcome) {
        let tell = || {
            if outcome.result.verification.verdict != Verdict::Pass {
                self.printer.status(&line_of(&outcome.result));
            }
            (self.done)(at, outcome);
        };
        match self.bar().as_ref() {
            Some(bar) => bar.suspend(tell),
            None => tell(),
        }
    }

    fn keep(&self, checks: &mut Checks) {
        (self.keep)(checks);
    }

    fn interrupted(&self) -> bool {
        interrupted()
    }
}

/// Moves a line of bytes on, with the time that is left.
fn move_on(slot: &mut Option<ProgressBar>, what: &str, done: u64, total: u64, file: &str) {
    let bar = slot.get_or_insert_with(|| {
        let bar = ProgressBar::new(total);
        let style = format!(
            "{what} {{bar:24}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{eta}} {{wide_msg:.dim}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    });
    bar.set_position(done);
    bar.set_message(plain(file.rsplit('/').next().unwrap_or(file)).into_owned());
}
