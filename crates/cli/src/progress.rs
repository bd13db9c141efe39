//! The moving line while weights are hashed, and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mlxman_manifest::registry::SyncObserver;

use crate::printer::Printer;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C asks for an orderly end, and the second ends the process.
pub(crate) fn catch_interrupts() {
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::abort();
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
