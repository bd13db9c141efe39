//! Sizes, counts and ages as people write them, read and written exactly.
//!
//! No floating point is involved: `1.1GB` is 1,100,000,000 bytes and nothing else. What comes to a fraction of a byte
//! (`1.1GiB`), or of a second, is rounded down.

use chrono::TimeDelta;
use thiserror::Error;

/// Why a text is not a size, a count or an age.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// It does not begin with a plain decimal number.
    #[error("`{given}` does not begin with a number such as 15 or 1.5")]
    NotANumber {
        /// The text as given.
        given: String,
    },
    /// A number is followed by something that is no unit.
    #[error("`{unit}` in `{given}` is no unit of {what}; the units are {units}")]
    UnknownUnit {
        /// The text as given.
        given: String,
        /// What stands where a unit should.
        unit: String,
        /// What the units measure.
        what: &'static str,
        /// The units there are.
        units: &'static str,
    },
    /// A number that means nothing without a unit.
    #[error("`{given}` needs a unit: {units}")]
    NoUnit {
        /// The text as given.
        given: String,
        /// The units there are.
        units: &'static str,
    },
    /// A fraction of what can't be divided.
    #[error("`{given}` has a fraction, and no unit that it could be a fraction of")]
    Fraction {
        /// The text as given.
        given: String,
    },
    /// More than can be held.
    #[error("`{given}` is too large")]
    TooLarge {
        /// The text as given.
        given: String,
    },
    /// More digits after the point than are read.
    #[error("`{given}` has more than 18 digits after the point")]
    TooPrecise {
        /// The text as given.
        given: String,
    },
}

const BYTE_UNITS: &str =
    "B, kB, MB, GB, TB, PB, EB (powers of 1000) and KiB, MiB, GiB, TiB, PiB, EiB (powers of 1024)";
const COUNT_UNITS: &str = "k, M, B (billions), T (trillions) and Ki, Mi (powers of 1024)";
const AGE_UNITS: &str = "s, m (minutes), h, d, w, mo (30 days), y (365 days)";

/// Reads a size: `1.5GB`, `1MiB`, `1 KB`, `300k`, or plain bytes. Units in any case; `K`, `M`, `G` … alone are powers of
/// 1000. Answers bytes.
///
/// # Errors
/// A text that is no such size, or one of more than [`u64::MAX`] bytes.
pub fn parse_bytes(given: &str) -> Result<u64, QuantityError> {
    let number = Number::read(given)?;
    let factor = match number.unit.to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => 1,
        "k" | "kb" => 10_u64.pow(3),
        "m" | "mb" => 10_u64.pow(6),
        "g" | "gb" => 10_u64.pow(9),
        "t" | "tb" => 10_u64.pow(12),
        "p" | "pb" => 10_u64.pow(15),
        "e" | "eb" => 10_u64.pow(18),
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        "pi" | "pib" => 1 << 50,
        "ei" | "eib" => 1 << 60,
        _ => return Err(number.unknown_unit("size", BYTE_UNITS)),
    };
    number.times(factor)
}

/// Reads a count, as of parameters or tokens: `7B`, `1.5b`, `500M`, `8k`, `32Ki`, or plain digits. Units in any case.
///
/// # Errors
/// A text that is no such count, or one above [`u64::MAX`].
pub fn parse_count(given: &str) -> Result<u64, QuantityError> {
    let number = Number::read(given)?;
    let factor = match number.unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 10_u64.pow(3),
        "m" => 10_u64.pow(6),
        "b" => 10_u64.pow(9),
        "t" => 10_u64.pow(12),
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        _ => return Err(number.unknown_unit("count", COUNT_UNITS)),
    };
    number.times(factor)
}

/// Reads an age: `30d`, `2w`, `12h`, `90m` (minutes), `6mo` (of 30 days), `1y` (of 365 days), `45s`, `1.5h`.
///
/// A capital `M` alone is refused, since it could be minutes or months, and the wrong guess would remove the wrong
/// models.
///
/// # Errors
/// A text that is no such age, has no unit, or is longer than a [`TimeDelta`] holds.
pub fn parse_age(given: &str) -> Result<TimeDelta, QuantityError> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let number = Number::read(given)?;
    if number.unit == "M" {
        return Err(number.unknown_unit("age", AGE_UNITS));
    }
    let factor = match number.unit.to_ascii_lowercase().as_str() {
        "" if number.whole == 0 && number.fraction == 0 => 1,
        "" => return Err(QuantityError::NoUnit { given: number.given.to_owned(), units: AGE_UNITS }),
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "wks" | "week" | "weeks" => 7 * DAY,
        "mo" | "mon" | "month" | "months" => 30 * DAY,
        "y" | "yr" | "yrs" | "year" | "years" => 365 * DAY,
        _ => return Err(number.unknown_unit("age", AGE_UNITS)),
    };
    let too_large = || QuantityError::TooLarge { given: given.trim().to_owned() };
    let seconds = if factor == 1 { number.floor_times(1)? } else { number.times(factor)? };
    i64::try_from(seconds).ok().and_then(TimeDelta::try_seconds).ok_or_else(too_large)
}

/// A decimal number and what follows it.
struct Number<'a> {
    given: &'a str,
    whole: u64,
    /// The digits after the point, as so many parts of 10^18.
    fraction: u64,
    unit: &'a str,
}

impl<'a> Number<'a> {
    fn read(given: &'a str) -> Result<Self, QuantityError> {
        let given = given.trim();
        let not_a_number = || QuantityError::NotANumber { given: given.to_owned() };
        let end = given.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(given.len());
        let (whole, mut rest) = given.split_at(end);
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            (fraction, rest) = after.split_at(end);
            if fraction.is_empty() {
                return Err(not_a_number());
            }
        }
        if (whole.is_empty() && fraction.is_empty()) || whole.starts_with('_') || whole.ends_with('_') {
            return Err(not_a_number());
        }
        let mut value = 0_u64;
        for digit in whole.bytes().filter(u8::is_ascii_digit) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                .ok_or_else(|| QuantityError::TooLarge { given: given.to_owned() })?;
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 18 {
            return Err(QuantityError::TooPrecise { given: given.to_owned() });
        }
        let parts = fraction.bytes().chain(std::iter::repeat(b'0')).take(18);
        let fraction = parts.fold(0_u64, |parts, digit| parts * 10 + u64::from(digit - b'0'));
        Ok(Self { given, whole: value, fraction, unit: rest.trim_start() })
    }

    fn times(&self, factor: u64) -> Result<u64, QuantityError> {
        if factor == 1 && self.fraction != 0 {
            return Err(QuantityError::Fraction { given: self.given.to_owned() });
        }
        self.floor_times(factor)
    }

    fn floor_times(&self, factor: u64) -> Result<u64, QuantityError> {
        // Below 2^60 × 10^18 < 2^120, and the first product below 2^124: neither can overflow.
        let parts = u128::from(self.fraction) * u128::from(factor) / 10_u128.pow(18);
        let total = u128::from(self.whole) * u128::from(factor) + parts;
        u64::try_from(total).map_err(|_| QuantityError::TooLarge { given: self.given.to_owned() })
    }

    fn unknown_unit(&self, what: &'static str, units: &'static str) -> QuantityError {
        QuantityError::UnknownUnit { given: self.given.to_owned(), unit: self.unit.to_owned(), what, units }
    }
}

/// Writes bytes for people: `512 B`, `4.7 GB`, `1.23 TB`. Powers of 1000, three significant digits at most, rounded half
/// up, and never `1000 MB`. [`parse_bytes`] reads it back to within half a percent.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let (number, unit) = three_digits(bytes, &["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
    format!("{number} {unit}")
}

/// Writes a count for people: `999`, `8k`, `1.24B`. Three significant digits at most, rounded half up; [`parse_count`]
/// reads it back to within half a percent.
#[must_use]
pub fn format_count(count: u64) -> String {
    let (number, unit) = three_digits(count, &["", "k", "M", "B", "T"]);
    format!("{number}{unit}")
}

/// Writes an age for people in its largest whole unit, rounded down: `45s`, `12m`, `3h`, `59d`, `2mo`, `1y`. Months are
/// of 30 days, from the second one on; years of 365. What lies in the future has the age `0s`. [`parse_age`] reads it.
#[must_use]
pub fn format_age(age: TimeDelta) -> String {
    let days = age.num_days();
    match age.num_seconds() {
        ..0 => "0s".to_owned(),
        seconds @ 0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", age.num_minutes()),
        3600..86_400 => format!("{}h", age.num_hours()),
        _ if days < 60 => format!("{days}d"),
        _ if days < 365 => format!("{}mo", days / 30),
        _ => format!("{}y", days / 365),
    }
}

/// Writes an age that somebody gave as it is, in days where it is so many: `90d`, `36h`, `90m`, `45s`.
#[must_use]
pub fn format_exact_age(age: TimeDelta) -> String {
    let seconds = age.num_seconds();
    [(86_400, 'd'), (3600, 'h'), (60, 'm')]
        .into_iter()
        .find(|(unit, _)| seconds != 0 && seconds % unit == 0)
        .map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// `value` to three significant digits in the largest unit that leaves one digit or more before the point.
fn three_digits<'u>(value: u64, units: &[&'u str]) -> (String, &'u str) {
    let value = u128::from(value);
    let last = units.len() - 1;
    let mut step = 1_u128;
    for (at, unit) in units.iter().enumerate() {
        // Hundredths of the unit, then as many digits cut off as leave three.
        let cut = match value / step {
            0..10 => 1,
            10..100 => 10,
            _ => 100,
        };
        let hundredths = (value * 100 + step * cut / 2) / (step * cut) * cut;
        if hundredths >= 100_000 && at < last {
            step *= 1000;
            continue;
        }
        let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        return (text.trim_end_matches('0').trim_end_matches('.').to_owned(), unit);
    }
    (value.to_string(), units[0])
}
