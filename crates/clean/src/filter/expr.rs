//! `field OP value`: reading it, and asking it of a model.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::error::FilterErrorKind;
use super::fields::{Facts, Field, Kind, Value};
use super::label::LabelPattern;
use super::pattern::Pattern;
use super::quantity::{parse_age, parse_bytes, parse_count};

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=` or `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `~`: the glob matches, or the text occurs
    Like,
    /// `!~`
    NotLike,
}

impl Op {
    /// The operator as it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Like => "~",
            Self::NotLike => "!~",
        }
    }

    fn is_positive(self) -> bool {
        matches!(self, Self::Equal | Self::Like)
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual)
    }

    pub(super) fn suits(self, kind: Kind) -> bool {
        match kind {
            Kind::Bytes | Kind::Count | Kind::Number | Kind::Age => {
                !matches!(self, Self::Like | Self::NotLike)
            }
            Kind::Text | Kind::Label | Kind::List => !self.is_order(),
            Kind::Bool => matches!(self, Self::Equal | Self::NotEqual),
        }
    }

    /// Whether the operator holds of something that compares so with the value.
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Equal | Self::Like => ordering.is_eq(),
            Self::NotEqual | Self::NotLike => ordering.is_ne(),
        }
    }
}

/// What the value of an expression stands for.
#[derive(Debug, Clone)]
enum Operand {
    Unknown,
    Whole(u64),
    Number(f64),
    Age(TimeDelta),
    /// From the first time up to, and without, the second.
    Day(DateTime<Utc>, DateTime<Utc>),
    Instant(DateTime<Utc>),
    Bool(bool),
    Text(String),
    Like(Pattern),
    Label(LabelPattern),
}

/// One condition, `field OP value`.
#[derive(Debug, Clone)]
pub struct Expr {
    field: &'static Field,
    op: Op,
    value: String,
    operand: Operand,
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_alphanumeric() || "._-/*?[]:@+".contains(c);
        let quoted = !self.value.chars().all(is_plain);
        let quote = match (quoted, self.value.contains('"')) {
            (false, _) => "",
            (true, false) => "\"",
            (true, true) => "'",
        };
        write!(f, "{}{}{quote}{}{quote}", self.field.name, self.op.symbol(), self.value)
    }
}

impl Expr {
    /// The field it asks for.
    #[must_use]
    pub fn field(&self) -> &'static Field {
        self.field
    }

    /// How it compares.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// The value as it was given, without quotes.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it holds of a model. Ages are taken from `now`.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>, now: DateTime<Utc>) -> bool {
        let Some(value) = self.field.value(facts) else {
            return self.op == Op::Equal && self.asks_for_unknown();
        };
        let op = self.op;
        match (&self.operand, value) {
            (Operand::Unknown, _) => op == Op::NotEqual,
            (Operand::Whole(limit), Value::Whole(value)) => op.holds(value.cmp(limit)),
            (Operand::Number(limit), Value::Number(value)) => {
                value.partial_cmp(limit).is_some_and(|ordering| op.holds(ordering))
            }
            // The greater the age, the earlier the time.
            (Operand::Age(age), Value::Time(time)) => {
                let then = now.checked_sub_signed(*age).unwrap_or(DateTime::<Utc>::MIN_UTC);
                op.holds(then.cmp(&time))
            }
            (Operand::Day(start, end), Value::Time(time)) => op.holds(if time < *start {
                Ordering::Less
            } else if time < *end {
                Ordering::Equal
            } else {
                Ordering::Greater
            }),
            (Operand::Instant(limit), Value::Time(time)) => op.holds(time.cmp(limit)),
            (Operand::Bool(wanted), Value::Bool(value)) => op.holds(value.cmp(wanted)),
            (operand, Value::Text(value)) => operand.finds(value) == op.is_positive(),
            (operand, Value::List(values)) => {
                let is_none = values.is_empty() && matches!(operand, Operand::Text(text) if text == "none");
                (is_none || values.iter().any(|value| operand.finds(value))) == op.is_positive()
            }
            _ => false,
        }
    }

    fn asks_for_unknown(&self) -> bool {
        matches!(self.operand, Operand::Unknown) || self.value.eq_ignore_ascii_case("unknown")
    }

    pub(super) fn new(field: &'static Field, op: Op, value: &str) -> Result<Self, FilterErrorKind> {
        let operand = operand(field, op, value)?;
        Ok(Self { field, op, value: value.to_owned(), operand })
    }
}

impl Operand {
    fn finds(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => text.to_lowercase() == *wanted,
            Self::Like(pattern) => pattern.is_within(text),
            Self::Label(label) => label.matches(text),
            _ => false,
        }
    }
}

fn operand(field: &'static Field, op: Op, value: &str) -> Result<Operand, FilterErrorKind> {
    let kind = field.kind;
    if !op.suits(kind) {
        let (operator, allowed) = (op.symbol(), kind.operators());
        return Err(FilterErrorKind::WrongOperator {
            field: field.name,
            kind: kind.describe(),
            operator,
            allowed,
        });
    }
    let wrong = |why: Option<String>| FilterErrorKind::WrongValue {
        field: field.name,
        kind: kind.describe(),
        value: value.to_owned(),
        why,
        example: kind.example(),
    };
    let is_text = matches!(kind, Kind::Text | Kind::Label | Kind::List);
    let unknown =
        value.eq_ignore_ascii_case("unknown") || (kind == Kind::Age && value.eq_ignore_ascii_case("never"));
    if unknown && !is_text {
        return match op {
            Op::Equal | Op::NotEqual => Ok(Operand::Unknown),
            _ => Err(wrong(Some("it goes with `=` and `!=`".to_owned()))),
        };
    }
    match kind {
        Kind::Bytes => parse_bytes(value).map(Operand::Whole).map_err(|error| wrong(Some(error.to_string()))),
        Kind::Count => parse_count(value).map(Operand::Whole).map_err(|error| wrong(Some(error.to_string()))),
        Kind::Number => value
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Operand::Number)
            .ok_or_else(|| wrong(None)),
        Kind::Age => {
            let time = time(value).map_err(|why| wrong(Some(why)))?;
            match time {
                Operand::Age(_) if !op.is_order() => Err(FilterErrorKind::InexactAge { field: field.name }),
                time => Ok(time),
            }
        }
        Kind::Bool => match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "1" => Ok(Operand::Bool(true)),
            "false" | "no" | "n" | "0" => Ok(Operand::Bool(false)),
            _ => Err(wrong(None)),
        },
        Kind::Text | Kind::Label | Kind::List => {
            let glob = |error: globset::Error| FilterErrorKind::Glob { why: error.kind().to_string() };
            match op {
                Op::Like | Op::NotLike => Pattern::new(value).map(Operand::Like).map_err(glob),
                _ if kind == Kind::Label => LabelPattern::new(value).map(Operand::Label).map_err(glob),
                _ => Ok(Operand::Text(value.to_lowercase())),
            }
        }
    }
}

/// A date, a time, or an age.
fn time(value: &str) -> Result<Operand, String> {
    if let Ok(day) = value.parse::<NaiveDate>() {
        let start = day.and_time(NaiveTime::MIN).and_utc();
        let end = start.checked_add_days(Days::new(1)).ok_or("it is too far away")?;
        return Ok(Operand::Day(start, end));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(value) {
        return Ok(Operand::Instant(time.to_utc()));
    }
    parse_age(value).map(Operand::Age).map_err(|error| error.to_string())
}
