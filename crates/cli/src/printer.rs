//! stdout is data, stderr is status.

use std::io::{self, IsTerminal, Write};

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::args::Global;

/// Where things are printed, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) json: bool,
    quiet: bool,
    /// Columns of the terminal that stdout is, if it is one.
    width: Option<usize>,
}

impl Printer {
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        Printer {
            json: global.json,
            quiet: global.quiet,
            width: if terminal { width.or(Some(80)) } else { None },
        }
    }

    /// Columns to fit in; `None` where stdout is no terminal and nothing needs to fit.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Data, as it is.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Data as JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
        // serde_json wraps what the pipe says; it is unwrapped so that a broken one is known as such.
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush()?;
        Ok(())
    }

    /// A line of status.
    pub(crate) fn status(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        }
    }

    /// A line that something is wrong, which does not end the run.
    pub(crate) fn warning(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr().lock(), "{} {text}", "warning:".yellow().bold());
        }
    }

    /// The line that says why the run ends.
    pub(crate) fn error(&self, text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{} {text}", "error:".red().bold());
    }

    /// Whether a moving line on stderr makes sense.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}
