//! Keys and values of the tokens so far.

use mlx_rs::{Array, ops};

use crate::error::Result;
use crate::ops::{part, with_part};

/// Room is made for so many tokens at once.
const STEP: i32 = 256;

/// Which tokens see which.
#[derive(Debug)]
pub(crate) enum Mask {
    /// One token, which sees all.
    None,
    /// Each sees itself and those before it.
    Causal,
    /// A truth for each pair.
    Pairs(Array),
}

/// One layer's cache. Along axis 2 lie the tokens.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    keys: Option<Array>,
    values: Option<Array>,
    /// Tokens so far.
    offset: i32,
    /// The most that are kept, where a window bounds what is seen.
    window: Option<i32>,
    /// Where the next token goes, in a window's cache.
    next: i32,
    /// The last token's key and value, as they are before they are blended.
    pub(crate) before: Option<(Array, Array)>,
}

impl Cache {
    pub(crate) fn new(window: Option<usize>) -> Cache {
        Cache { window: window.and_then(|window| i32::try_from(window).ok()), ..Cache::default() }
    }

    pub(crate) fn offset(&self) -> i32 {
        self.offset
    }

    /// The mask for `tokens` more tokens; `as_pairs` where the attention cannot take a word for it.
    pub(crate) fn mask(&self, tokens: i32, as_pairs: bool) -> Result<Mask> {
        if tokens == 1 {
            return Ok(Mask::None);
        }
        let (offset, window) = match self.window {
            Some(window) => (self.offset.min(window - 1), Some(window)),
            None => (self.offset, None),
        };
        let is_narrow = window.is_some_and(|window| offset + tokens > window);
        if !as_pairs && !is_narrow {
            return Ok(Mask::Causal);
        }
        let seen = Array::arange::<_, i32>(None, offset + tokens, None)?;
        let seeing = Array::arange::<_, i32>(offset, offset + tokens, None)?.expand_dims(1)?;
        let mut pairs = seeing.ge(&seen)?;
        if let Some(window) = window {
            pairs = pairs.logical_and(seeing.lt(seen.add(Array::from_int(window))?)?)?;
        }
        Ok(Mask::Pairs(pairs))
    }

    /// Adds the keys and values of new tokens, and gives those of all that are kept.
    pub(crate) fn extend(&mut self, keys: Array, values: Array) -> Result<(Array, Array)> {
        let tokens = keys.shape()[2];
        match self.window {
            None => self.append(&keys, &values, tokens),
            Some(window) if tokens == 1 => self.rotate(&keys, &values, window),
            Some(window) => self.append_in_window(keys, values, tokens, window),
        }
    }

    fn append(&mut self, keys: &Array, values: &Array, tokens: i32) -> Result<(Array, Array)> {
        let before = self.offset;
        let room = self.keys.as_ref().map_or(0, |keys| keys.shape()[2]);
        if before + tokens > room {
            let more = (STEP + tokens - 1) / STEP * STEP;
            self.keys = Some(grown(self.keys.take(), before, keys, more)?);
            self.values = Some(grown(self.values.take(), before, values, more)?);
        }
        self.offset += tokens;
        self.write(keys, values, before)?;
        self.upto(self.offset)
    }

    fn rotate(&mut self, keys: &Array, values: &Array, window: i32) -> Result<(Array, Array)> {
        let before = self.offset;
        let room = self.keys.as_ref().map_or(0, |keys| keys.shape()[2]);
        if self.keys.is_none() || (before >= room && room < window) {
            let more = STEP.min(window - before);
            self.keys = Some(grown(self.keys.take(), room, keys, more)?);
            self.values = Some(grown(self.values.take(), room, values, more)?);
            self.next = before;
        }
        // A prompt may have left more than the window.
        let room = self.keys.as_ref().map_or(0, |keys| keys.shape()[2]);
        if room > window {
            let last = |array: Option<Array>| -> Result<Option<Array>> {
                array.map(|array| part(&array, 2, room - window, room)).transpose()
            };
            self.keys = last(self.keys.take())?;
            self.values = last(self.values.take())?;
            self.next = window;
        }
        if self.next == window {
            self.next = 0;
        }
        self.write(keys, values, self.next)?;
        self.offset += 1;
        self.next += 1;
        let room = self.keys.as_ref().map_or(0, |keys| keys.shape()[2]);
        self.upto(self.offset.min(room))
    }

    fn append_in_window(
        &mut self,
        keys: Array,
        values: Array,
        tokens: i32,
        window: i32,
    ) -> Result<(Array, Array)> {
        let next = self.next;
        let offset = self.offset;
        let joined = |old: Option<Array>, new: Array| -> Result<Array> {
            let Some(old) = old else { return Ok(new) };
            let old = in_order(old, next, offset)?;
            let length = old.shape()[2];
            // Every new token sees its whole window.
            let surplus = (length - window + 1).max(0);
            Ok(ops::concatenate(&[part(&old, 2, surplus, length)?, new], 2)?)
        };
        let keys = joined(self.keys.take(), keys)?;
        let values = joined(self.values.take(), values)?;
        self.offset += tokens;
        self.next = keys.shape()[2];
        self.keys = Some(keys.clone());
        self.values = Some(values.clone());
        Ok((keys, values))
    }

    fn write(&mut self, keys: &Array, values: &Array, at: i32) -> Result<()> {
        if let (Some(old_keys), Some(old_values)) = (self.keys.take(), self.values.take()) {
            self.keys = Some(with_part(&old_keys, keys, 2, at)?);
            self.values = Some(with_part(&old_values, values, 2, at)?);
        }
        Ok(())
    }

    fn upto(&self, length: i32) -> Result<(Array, Array)> {
        let cut = |array: &Option<Array>| -> Result<Array> {
            match array {
                Some(array) if array.shape()[2] > length => part(array, 2, 0, length),
                Some(array) => Ok(array.clone()),
                None => Ok(Array::from_slice::<f32>(&[], &[0])),
            }
        };
        Ok((cut(&self.keys)?, cut(&self.values)?))
    }

    /// What has to be evaluated so that nothing of a prompt stays undone.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        let before = self.before.iter().flat_map(|(key, value)| [key, value]);
        self.keys.iter().chain(&self.values).chain(before)
    }
}

/// A cache with room for `more` tokens behind its first `kept`.
fn grown(old: Option<Array>, kept: i32, like: &Array, more: i32) -> Result<Array> {
    let mut shape = like.shape().to_vec();
    shape[2] = more;
    let room = ops::zeros_dtype(&shape, like.dtype())?;
    match old {
        None => Ok(room),
        Some(old) => {
            let old = if old.shape()[2] > kept { part(&old, 2, 0, kept)? } else { old };
            Ok(ops::concatenate(&[old, room], 2)?)
        }
    }
}

/// A window's cache with its oldest token first.
fn in_order(array: Array, next: i32, offset: i32) -> Result<Array> {
    let length = array.shape()[2];
    if next == length {
        return Ok(array);
    }
    if next < offset {
        return Ok(ops::concatenate(&[part(&array, 2, next, length)?, part(&array, 2, 0, next)?], 2)?);
    }
    part(&array, 2, 0, next)
}
