//! stdout is data, stderr is status.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::args::Global;

/// A text from outside, such as a file's name, fit to be shown: what would steer a terminal, or turn the line around,
/// is written out.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The same for a text that has several lines.
fn plain_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

fn escaped(text: &str, may_stay: impl Fn(char) -> bool) -> Cow<'_, str> {
    let steers = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() || turns) && !may_stay(c)
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

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

    /// Data, as it is: what stands in it from outside went through [`plain`].
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
            let _ = writeln!(anstream::stderr().lock(), "{}", plain(text));
        }
    }

    /// A line that something is wrong, which does not end the run.
    pub(crate) fn warning(&self, text: &str) {
        if !self.quiet {
            self.refusal(text);
        }
    }

    /// A line on what was asked for and not done, which the exit status tells as well: quiet or not.
    pub(crate) fn refusal(&self, text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{} {}", "warning:".yellow().bold(), plain(text));
    }

    /// The line that says why the run ends.
    pub(crate) fn error(&self, text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{} {}", "error:".red().bold(), plain_lines(text));
    }

    /// Whether a moving line on stderr makes sense.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("acme/modèle-4bit"), "acme/modèle-4bit");
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d\u{9b}m"), "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}m");
        assert_eq!(plain_lines("a\nb\r"), "a\nb\\r");
    }
}
