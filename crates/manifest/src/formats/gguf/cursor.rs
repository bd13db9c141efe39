//! Reading fields in order, each held against the file's length before anything is allocated for it.

use std::io::{BufRead, BufReader, ErrorKind, Read};

use super::{GgufError, MAX_HEADER_LEN};

/// The longest key or name that the format allows, in bytes.
const MAX_NAME_LEN: u64 = 65_535;

pub(super) struct Cursor<R> {
    reader: BufReader<R>,
    position: u64,
    file_len: u64,
}

impl<R: Read> Cursor<R> {
    pub(super) fn new(reader: R, file_len: u64) -> Self {
        Self { reader: BufReader::with_capacity(64 << 10, reader), position: 0, file_len }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Fails unless the next `len` bytes lie within the file and the longest header.
    fn claim(&mut self, len: u64) -> Result<(), GgufError> {
        let end = self.position.checked_add(len).filter(|&end| end <= self.file_len);
        let end = end.ok_or_else(|| self.truncated(len))?;
        if end > MAX_HEADER_LEN {
            return Err(GgufError::TooLarge);
        }
        Ok(())
    }

    fn truncated(&self, needed: u64) -> GgufError {
        GgufError::Truncated { offset: self.position, needed, actual: self.file_len }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), GgufError> {
        let needed = buffer.len() as u64;
        self.reader.read_exact(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.truncated(needed),
            _ => GgufError::Io(error),
        })?;
        self.position += needed;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A key or a tensor's name. Bytes that are not UTF-8 are replaced.
    pub(super) fn name(&mut self) -> Result<String, GgufError> {
        let offset = self.position;
        let len = self.u64()?;
        if len > MAX_NAME_LEN {
            self.claim(len)?;
            return Err(GgufError::NameLength { offset, len });
        }
        self.text(len)
    }

    /// `len` bytes, which the caller has bounded, as text.
    pub(super) fn text(&mut self, len: u64) -> Result<String, GgufError> {
        self.claim(len)?;
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), GgufError> {
        self.claim(len)?;
        let mut left = len;
        while left > 0 {
            let there = match self.reader.fill_buf() {
                Ok(buffer) => (buffer.len() as u64).min(left),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if there == 0 {
                return Err(self.truncated(left));
            }
            self.reader.consume(there as usize);
            self.position += there;
            left -= there;
        }
        Ok(())
    }
}
