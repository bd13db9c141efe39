//! Reading the text of `--filter`.

use super::error::{FilterError, FilterErrorKind};
use super::expr::{Expr, Op};
use super::fields::{Field, Kind, field, fields};
use super::near::nearest;

/// The operators as written, the longer before those they begin with.
const OPERATORS: [(&str, Op); 9] = [
    (">=", Op::GreaterOrEqual),
    ("<=", Op::LessOrEqual),
    ("==", Op::Equal),
    ("!=", Op::NotEqual),
    ("!~", Op::NotLike),
    (">", Op::Greater),
    ("<", Op::Less),
    ("=", Op::Equal),
    ("~", Op::Like),
];

/// Reads conditions that are joined by `,`, `and` or `&&`. A value that contains one of these is put in `"` or `'`. Of a
/// yes-or-no field the name alone, or with `!` before it, will do.
///
/// # Errors
/// The first thing that is not understood, and where it stands.
pub fn parse_exprs(given: &str) -> Result<Vec<Expr>, FilterError> {
    let error = |at: Option<usize>, kind| FilterError {
        option: "--filter",
        given: given.to_owned(),
        at,
        kind: Box::new(kind),
    };
    if given.trim().is_empty() {
        return Err(error(None, FilterErrorKind::Empty));
    }
    let mut reader = Reader { given, at: 0 };
    let mut exprs = Vec::new();
    loop {
        let expr =
            reader.condition().map_err(|(at, kind)| error(Some(given[..at].chars().count() + 1), kind))?;
        exprs.push(expr);
        match reader.joint() {
            Some(length) => reader.at += length,
            None => break,
        }
    }
    Ok(exprs)
}

struct Reader<'a> {
    given: &'a str,
    /// In bytes.
    at: usize,
}

/// An error, and the byte it is about.
type Misread = (usize, FilterErrorKind);

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.given[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.given.len() - self.rest().trim_start().len();
    }

    fn expected<T>(&self, expected: impl Into<String>) -> Result<T, Misread> {
        let found = match self.rest().trim_start() {
            "" => "the end".to_owned(),
            rest => format!("`{rest}`"),
        };
        Err((self.at, FilterErrorKind::Expected { expected: expected.into(), found }))
    }

    /// The length of what joins two conditions, blanks before it included, if that stands here.
    fn joint(&self) -> Option<usize> {
        let rest = self.rest().trim_start();
        let blanks = self.rest().len() - rest.len();
        if rest.starts_with(',') {
            return Some(blanks + 1);
        }
        if rest.starts_with("&&") {
            return Some(blanks + 2);
        }
        let is_and = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("and"));
        let ends =
            rest.get(3..).is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace));
        (is_and && ends && blanks > 0).then_some(blanks + 3)
    }

    fn ends(&self) -> bool {
        self.rest().trim_start().is_empty() || self.joint().is_some()
    }

    fn condition(&mut self) -> Result<Expr, Misread> {
        self.skip_blanks();
        let start = self.at;
        let negated = self.rest().starts_with('!');
        if negated {
            self.at += 1;
            self.skip_blanks();
        }
        let field = self.field()?;
        if self.ends() && field.kind == Kind::Bool {
            let value = if negated { "false" } else { "true" };
            return Expr::new(field, Op::Equal, value).map_err(|kind| (start, kind));
        }
        if negated {
            self.at = start;
            return self.expected("`!` only before a yes-or-no field that stands alone, such as `!pinned`");
        }
        self.skip_blanks();
        let operator = self.at;
        let Some((text, op)) = OPERATORS.into_iter().find(|(text, _)| self.rest().starts_with(text)) else {
            let name = field.name;
            return self.expected(format!("{} after `{name}`", field.kind.operators()));
        };
        if !op.suits(field.kind) {
            return Err((operator, Expr::new(field, op, "").err().unwrap_or(FilterErrorKind::Empty)));
        }
        self.at += text.len();
        self.skip_blanks();
        let place = self.at;
        let value = self.value(op)?;
        Expr::new(field, op, value).map_err(|kind| (place, kind))
    }

    fn field(&mut self) -> Result<&'static Field, Misread> {
        let rest = self.rest();
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            return self.expected("a condition such as `size>5GB`");
        }
        let Some(field) = field(name) else {
            let all: Vec<&'static str> = fields().iter().map(|field| field.name).collect();
            let names =
                fields().iter().flat_map(|field| std::iter::once(&field.name).chain(field.aliases).copied());
            let near = nearest(name, names, 3);
            return Err((self.at, FilterErrorKind::UnknownField { field: name.to_owned(), near, all }));
        };
        self.at += name.len();
        Ok(field)
    }

    fn value(&mut self, op: Op) -> Result<&'a str, Misread> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let Some(length) = rest[1..].find(quote) else {
                return self.expected(format!("a closing `{quote}`"));
            };
            if length == 0 {
                return self.expected(format!("a value after `{}`", op.symbol()));
            }
            self.at += length + 2;
            if !self.ends() {
                return self.expected("`,`, `and` or `&&` after the quoted value");
            }
            return Ok(&rest[1..=length]);
        }
        if rest.starts_with(['<', '>', '=', '~', '!']) {
            return self
                .expected(format!("one operator (for example `>=`), not `{}` and another", op.symbol()));
        }
        let start = self.at;
        while !self.ends() {
            let rest = self.rest();
            // Up to the next character that could begin a joint.
            let next = rest.char_indices().skip(1).find(|(_, c)| c.is_whitespace() || matches!(c, ',' | '&'));
            self.at += next.map_or(rest.len(), |(at, _)| at);
        }
        let value = self.given[start..self.at].trim();
        if value.is_empty() {
            return self.expected(format!("a value after `{}`", op.symbol()));
        }
        Ok(value)
    }
}
