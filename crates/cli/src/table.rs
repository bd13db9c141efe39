//! Tables and how values look in them.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use mlxman_clean::filter::quantity::{format_age, format_bytes, format_count};
use mlxman_store::UsedBy;
use owo_colors::OwoColorize;
use unicode_width::UnicodeWidthStr as _;

use crate::printer::{Printer, plain};

/// Text is cut to no fewer characters than this while another column could go instead.
const LEAST_TEXT: usize = 22;

/// A column: its heading, whether numbers stand in it, and how soon it goes when the terminal is narrow (0 never).
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) right: bool,
    pub(crate) expendable: u8,
}

pub(crate) const fn text(name: &'static str, expendable: u8) -> Column {
    Column { name, right: false, expendable }
}

pub(crate) const fn number(name: &'static str, expendable: u8) -> Column {
    Column { name, right: true, expendable }
}

/// Lays rows out as a table that fits the printer's width: the most expendable columns go first, then cells are cut.
pub(crate) fn render(printer: &Printer, columns: &[Column], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let mut shown: Vec<usize> = (0..columns.len())
        .filter(|&at| rows.iter().any(|row| !row[at].is_empty()) || columns[at].expendable == 0)
        .collect();
    if let Some(width) = printer.width() {
        let width_of = |at: usize| characters(columns, &rows, at);
        let least = |at: usize| if columns[at].right { width_of(at) } else { width_of(at).min(LEAST_TEXT) };
        while shown.iter().map(|&at| least(at) + 2).sum::<usize>() > width + 2 {
            let Some(worst) = shown
                .iter()
                .copied()
                .filter(|&at| columns[at].expendable > 0)
                .max_by_key(|&at| columns[at].expendable)
            else {
                break;
            };
            shown.retain(|&at| at != worst);
        }
    }
    let lines = match printer.width() {
        Some(width) => fitted(columns, &shown, &rows, width),
        None => padded(columns, &shown, &rows),
    };
    let mut out = String::new();
    for (at, line) in lines.lines().enumerate() {
        let line = line.trim_end();
        if at == 0 && printer.width().is_some() {
            out.push_str(&line.bold().to_string());
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

type Cells<'a> = [Vec<Cow<'a, str>>];

/// A table that fits a terminal.
fn fitted(columns: &[Column], shown: &[usize], rows: &Cells<'_>, width: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_truncation_indicator("…");
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(shown.iter().map(|&at| columns[at].name.to_owned()));
    for row in rows {
        let mut cells = comfy_table::Row::from(shown.iter().map(|&at| row[at].as_ref()));
        cells.max_height(1);
        table.add_row(cells);
    }
    for (place, &at) in shown.iter().enumerate() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if columns[at].right {
                column.set_cell_alignment(CellAlignment::Right);
                column.set_constraint(ColumnConstraint::ContentWidth);
            } else if place > 0 {
                let most = u16::try_from(characters(columns, rows, at)).unwrap_or(u16::MAX).saturating_add(2);
                column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(most)));
            }
        }
    }
    table.to_string()
}

/// A table in which every cell stands whole: what a program reads may have thousands of rows.
fn padded(columns: &[Column], shown: &[usize], rows: &Cells<'_>) -> String {
    let widths: Vec<usize> = shown
        .iter()
        .map(|&at| {
            rows.iter().map(|row| row[at].width()).chain([columns[at].name.width()]).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::with_capacity((rows.len() + 1) * (widths.iter().sum::<usize>() + 2 * shown.len()));
    let header: Vec<Cow<'_, str>> = columns.iter().map(|column| Cow::Borrowed(column.name)).collect();
    for row in std::iter::once(&header).chain(rows) {
        for (&at, &width) in shown.iter().zip(&widths) {
            let cell = &row[at];
            let pad = width.saturating_sub(cell.width());
            let (before, after) = if columns[at].right { (pad, 2) } else { (0, pad + 2) };
            out.extend(std::iter::repeat_n(' ', before));
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', after));
        }
        out.push('\n');
    }
    out
}

/// The characters of a column's longest cell.
fn characters(columns: &[Column], rows: &Cells<'_>, at: usize) -> usize {
    rows.iter().map(|row| row[at].chars().count()).chain([columns[at].name.len()]).max().unwrap_or(0)
}

pub(crate) fn bytes(bytes: u64) -> String {
    format_bytes(bytes)
}

/// Bytes of which more may come back.
pub(crate) fn reclaim(bytes: u64, at_least: bool) -> String {
    if at_least { format!("≥ {}", format_bytes(bytes)) } else { format_bytes(bytes) }
}

pub(crate) fn count(count: Option<u64>) -> String {
    count.map(format_count).unwrap_or_default()
}

/// Tokens a second.
pub(crate) fn rate(rate: Option<f64>) -> String {
    rate.map(|rate| if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") })
        .unwrap_or_default()
}

/// How long ago.
pub(crate) fn age(time: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    time.map(|time| format_age(now.signed_duration_since(time).max(chrono::TimeDelta::zero())))
        .unwrap_or_default()
}

/// How long ago something was used; with `~` where only files' times say so, which tell of every reader.
pub(crate) fn last_use(time: Option<DateTime<Utc>>, by: Option<UsedBy>, now: DateTime<Utc>) -> String {
    let mark = if by == Some(UsedBy::Log) || time.is_none() { "" } else { "~" };
    format!("{mark}{}", age(time, now))
}

/// One noun or several.
pub(crate) fn plural(count: usize, one: &str) -> String {
    if count == 1 {
        return format!("1 {one}");
    }
    let many = match one.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{one}s"),
    };
    format!("{count} {many}")
}
