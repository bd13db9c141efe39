//! The moving line while weights are hashed, and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mlxman_manifest::registry::SyncObserver;

use crate::printer::Printer;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether the stores are being read, when nothing is lost by an end.
static LOOKING: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks for an orderly end, which keeps what was hashed and leaves no temporary file; while the
/// stores are being read, and the second time, it ends the process at once.
pub(crate) fn catch_interrupts() {
    // Where no handler can be set, Ctrl-C ends the process, as without one.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) || LOOKING.load(Ordering::SeqCst) {
            #[expect(
                clippy::exit,
                reason = "what a signal without a handler does; 130 is what shells make of it"
            )]
            std::process::exit(130);
        }
    });
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
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::new(total);
            let style = "hashing {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg:.dim}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_position(done);
        bar.set_message(file.rsplit('/').next().unwrap_or(file).to_owned());
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
        INTERRUPTED.load(Ordering::SeqCst)
    }
}
