//! The JSON of a header, streamed into tensors by serde visitors: no tree of values in between.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Dtype, Flaw, HeaderError, TensorInfo};
use crate::formats::json::message;

/// The name under which the header keeps its metadata.
const METADATA: &str = "__metadata__";

#[derive(Default)]
pub(super) struct Parsed {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) flaws: Vec<Flaw>,
}

/// What made an entry invalid, where a plain message would lose the tensor's name.
type Cause = Cell<Option<HeaderError>>;

pub(super) fn parse(json: &[u8]) -> Result<Parsed, HeaderError> {
    let cause = Cause::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer
        .deserialize_map(HeaderVisitor { cause: &cause })
        .and_then(|parsed| deserializer.end().map(|()| parsed))
        .map_err(|error| {
            cause.take().unwrap_or_else(|| HeaderError::Json {
                message: message(&error),
                line: error.line(),
                column: error.column(),
            })
        })
}

struct HeaderVisitor<'a> {
    cause: &'a Cause,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut parsed = Parsed::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if std::mem::replace(&mut has_metadata, true) {
                    parsed.flaws.push(Flaw::Duplicate { name: METADATA.into() });
                    parsed.metadata.clear();
                }
                map.next_value_seed(Metadata { parsed: &mut parsed })?;
            } else {
                let tensor = map.next_value_seed(Tensor { name: name.into(), cause: self.cause })?;
                parsed.tensors.push(tensor);
            }
        }
        Ok(parsed)
    }
}

/// `__metadata__`, or `null` in its place.
struct Metadata<'a> {
    parsed: &'a mut Parsed,
}

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings in __metadata__")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(MetadataValue)?;
            if !matches!(value, Text::String(_)) {
                self.parsed.flaws.push(Flaw::MetadataNotText { key: key.as_str().into() });
            }
            if let Text::String(text) | Text::Scalar(text) = value {
                self.parsed.metadata.insert(key, text);
            }
        }
        Ok(())
    }
}

enum Text {
    String(String),
    Scalar(String),
    Other,
}

struct MetadataValue;

impl<'de> DeserializeSeed<'de> for MetadataValue {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataValue {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text::String(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text::Scalar(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text::Scalar(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text::Scalar(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text::Scalar(value.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(Text::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(Text::Other)
    }
}

/// One tensor's entry, whose name has been read.
struct Tensor<'a> {
    name: Box<str>,
    cause: &'a Cause,
}

impl<'de> DeserializeSeed<'de> for Tensor<'_> {
    type Value = TensorInfo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TensorInfo, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensor<'_> {
    type Value = TensorInfo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with dtype, shape and data_offsets for tensor {:?}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorInfo, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key_seed(Word(Field::from_name))? {
            match field {
                Field::Dtype if dtype.is_none() => dtype = Some(map.next_value_seed(Word(Dtype::from_name))?),
                Field::Shape if shape.is_none() => {
                    let Some(dims) = map.next_value_seed(WholeNumbers)? else {
                        self.cause.set(Some(HeaderError::ShapeInvalid { tensor: self.name }));
                        return Err(A::Error::custom("invalid shape"));
                    };
                    shape = Some(dims);
                }
                Field::Offsets if offsets.is_none() => {
                    let Some(&[begin, end]) = map.next_value_seed(WholeNumbers)?.as_deref() else {
                        self.cause.set(Some(HeaderError::OffsetsInvalid { tensor: self.name }));
                        return Err(A::Error::custom("invalid offsets"));
                    };
                    offsets = Some((begin, end));
                }
                Field::Dtype => return Err(A::Error::duplicate_field("dtype")),
                Field::Shape => return Err(A::Error::duplicate_field("shape")),
                Field::Offsets => return Err(A::Error::duplicate_field("data_offsets")),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let (begin, end) = offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?;
        Ok(TensorInfo {
            name: self.name,
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            begin,
            end,
        })
    }
}

enum Field {
    Dtype,
    Shape,
    Offsets,
    Other,
}

impl Field {
    fn from_name(name: &str) -> Self {
        match name {
            "dtype" => Self::Dtype,
            "shape" => Self::Shape,
            "data_offsets" => Self::Offsets,
            _ => Self::Other,
        }
    }
}

/// A string that is looked at and not kept.
struct Word<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Word<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Word<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// A list of numbers, or `None` where one is negative, broken or no number at all.
struct WholeNumbers;

impl<'de> DeserializeSeed<'de> for WholeNumbers {
    type Value = Option<Vec<u64>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for WholeNumbers {
    type Value = Option<Vec<u64>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of whole, non-negative numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut numbers = Some(Vec::new());
        while let Some(number) = seq.next_element_seed(WholeNumber)? {
            match (number, &mut numbers) {
                (Some(number), Some(numbers)) => numbers.push(number),
                _ => numbers = None,
            }
        }
        Ok(numbers)
    }
}

struct WholeNumber;

impl<'de> DeserializeSeed<'de> for WholeNumber {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for WholeNumber {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole, non-negative number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
