//! A small tree from the YAML parser's events.
//!
//! saphyr-parser reports events without recursion; a tree built by its own loader recurses as deep as the file nests
//! and copies what an alias names. So the tree is built here, to a limited depth, and aliases stand for scalars alone,
//! and for no more text than a whole front matter may have.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{FrontMatterError, MAX_DEPTH, MAX_FRONT_MATTER_LEN};

/// A value, scalars as they are written.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    fn text_len(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }

    /// The string itself, also as the only entry of a list.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(mut list) if list.len() == 1 => list.pop()?.into_text(),
            _ => None,
        }
    }

    /// The strings of a list, or a single string.
    pub(super) fn into_texts(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(list) => {
                list.into_iter().filter_map(|n| if let Self::Text(t) = n { Some(t) } else { None }).collect()
            }
            Self::Null | Self::Mapping(_) => Vec::new(),
        }
    }
}

/// A list or a mapping that has not ended.
enum Open {
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>, Option<Node>),
}

/// Parses `yaml` and gives its first document; line 1 of it is line `first_line` of the file.
pub(super) fn parse(yaml: &str, first_line: usize) -> Result<Node, FrontMatterError> {
    let line = |span: Span| first_line + span.start.line().saturating_sub(1);
    let mut parser = Parser::new(StrInput::new(yaml));
    let mut open: Vec<Open> = Vec::new();
    let mut scalars: HashMap<usize, Node> = HashMap::new();
    let mut copied = 0;
    let mut root = None;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| FrontMatterError::Yaml {
            line: first_line + error.marker().line().saturating_sub(1),
            message: error.info().to_owned(),
        })?;
        let node = match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if style == ScalarStyle::Plain => Node::Null,
                    _ => Node::Text(text.into_owned()),
                };
                if anchor != 0 {
                    scalars.insert(anchor, node.clone());
                }
                node
            }
            Event::Alias(anchor) => match scalars.get(&anchor) {
                Some(node) if copied <= MAX_FRONT_MATTER_LEN => {
                    copied += node.text_len();
                    node.clone()
                }
                _ => return Err(FrontMatterError::Alias { line: line(span) }),
            },
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == MAX_DEPTH => {
                return Err(FrontMatterError::TooDeep { line: line(span) });
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Node::List(list),
                Some(Open::Mapping(fields, _)) => Node::Mapping(fields),
                None => continue,
            },
            Event::Nothing
            | Event::StreamStart
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamEnd => continue,
        };
        match open.last_mut() {
            None => root = root.or(Some(node)),
            Some(Open::List(list)) => list.push(node),
            Some(Open::Mapping(fields, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => fields.push((key, node)),
            },
        }
    }
    Ok(root.unwrap_or(Node::Null))
}
