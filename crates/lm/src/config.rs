//! Reading `config.json`, as transformers and mlx_lm write it.

use serde_json::{Map, Value};

/// Why a `config.json` describes no model of its family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key that the family needs is not there.
    #[error("`{0}` is not in config.json, and this family needs it")]
    Missing(String),
    /// A value is none that the key can have.
    #[error("`{key}` is {value} in config.json; it should be {wanted}")]
    Value {
        /// The key.
        key: String,
        /// What stands there.
        value: String,
        /// What could stand there.
        wanted: &'static str,
    },
    /// No family of that name is known.
    #[error("the architecture `{0}` is not known")]
    UnknownFamily(String),
}

/// The most layers, heads or experts that are believed, and the largest size of anything: beyond them a config is
/// damaged or hostile, and nothing is allocated for it.
const MOST: usize = 4096;
const LARGEST: usize = 1 << 24;

/// One `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Config<'a> {
    /// The config in a JSON document; that of the text model, where it is one of several parts.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn new(document: &'a Value) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Value {
            key: "config.json".to_owned(),
            value: "no JSON object".to_owned(),
            wanted: "one",
        };
        document.as_object().map(|map| Config { map }).ok_or_else(wrong)
    }

    /// A copy of all that is in it.
    pub fn to_map(&self) -> Map<String, Value> {
        self.map.clone()
    }

    /// What is at `key`; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object at `key`.
    pub fn section(&self, key: &str) -> Option<Config<'a>> {
        self.get(key).and_then(Value::as_object).map(|map| Config { map })
    }

    /// `model_type`.
    ///
    /// # Errors
    /// When there is none.
    pub fn model_type(&self) -> Result<&'a str, ConfigError> {
        self.text("model_type").ok_or_else(|| ConfigError::Missing("model_type".to_owned()))
    }

    /// The text at `key`.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The truth at `key`, or `default`.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The number at `key`, or `default`.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.wrong(key, value, "a number"))
            }
        }
    }

    /// The number at `key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn needs_number(&self, key: &str) -> Result<f64, ConfigError> {
        self.get(key).ok_or_else(|| ConfigError::Missing(key.to_owned()))?;
        self.number(key, 0.0)
    }

    /// The size at `key`: a whole number from 1 on.
    ///
    /// # Errors
    /// When there is none, or something else.
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size_if(key)?.ok_or_else(|| ConfigError::Missing(key.to_owned()))
    }

    /// The size at `key`, or `default`.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.size_if(key)?.unwrap_or(default))
    }

    /// The size at `key`, where there is one.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn size_if(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        match size {
            Some(size) if (1..=LARGEST).contains(&size) => Ok(Some(size)),
            _ => Err(self.wrong(key, value, "a whole number from 1 to 16 million")),
        }
    }

    /// A number of layers, heads or experts.
    ///
    /// # Errors
    /// When there is none, or it is beyond belief.
    pub fn count(&self, key: &str) -> Result<usize, ConfigError> {
        let count = self.size(key)?;
        if count > MOST {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                value: count.to_string(),
                wanted: "at most 4096",
            });
        }
        Ok(count)
    }

    /// Such a number, where there is one; 0 counts as none.
    ///
    /// # Errors
    /// When it is beyond belief.
    pub fn count_if(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        if self.get(key).is_none_or(|value| value.as_u64() == Some(0)) {
            return Ok(None);
        }
        self.count(key).map(Some)
    }

    /// The list at `key`, each element read by `read`.
    ///
    /// # Errors
    /// When an element is none of those.
    pub fn list<T>(
        &self,
        key: &str,
        wanted: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<T>>>());
        list.map(Some).ok_or_else(|| self.wrong(key, value, wanted))
    }

    /// What is said of a value that cannot be.
    pub fn wrong(&self, key: &str, value: &Value, wanted: &'static str) -> ConfigError {
        let mut value = value.to_string();
        if value.chars().count() > 80 {
            value = value.chars().take(80).chain("…".chars()).collect();
        }
        ConfigError::Value { key: key.to_owned(), value, wanted }
    }
}
