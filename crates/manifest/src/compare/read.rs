//! The bytes: headers, and the data of two tensors side by side.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rayon::prelude::*;

use super::pair::Pair;
use super::{CompareError, Side, SideFile};
use crate::formats::LengthVerdict;
use crate::formats::safetensors::{Flaw, HeaderError, SafetensorsHeader};
use crate::threads::side_by_side;

/// Bytes that are read of a tensor at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// One file with its header.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    model: &'a str,
    file: &'a SideFile,
    len: u64,
    pub(super) header: SafetensorsHeader,
}

impl<'a> Opened<'a> {
    /// All files of `side`, in its order.
    pub(super) fn all(side: &'a Side<'_>) -> Result<Vec<Self>, CompareError> {
        let read: Vec<_> =
            side_by_side(|| side.files.par_iter().map(|file| Opened::read(side.name, file)).collect());
        // The first file's error, whichever was found first.
        read.into_iter().collect()
    }

    fn read(model: &'a str, file: &'a SideFile) -> Result<Self, CompareError> {
        let (model_name, path) = (|| model.to_owned(), || file.path.clone());
        let failed = |source| CompareError::Header { model: model_name(), path: path(), source };
        let len = file.file.metadata().map_err(|source| failed(HeaderError::Io(source)))?.len();
        let mut start = FromStart { file: &file.file, position: 0 };
        let header = SafetensorsHeader::read(&mut start, len).map_err(failed)?;
        let grave = |flaw: &&Flaw| !matches!(flaw, Flaw::UnknownDtype { .. } | Flaw::MetadataNotText { .. });
        if let Some(flaw) = header.flaws.iter().find(grave) {
            return Err(CompareError::Flawed { model: model_name(), path: path(), flaw: flaw.clone() });
        }
        if let LengthVerdict::Truncated { expected, actual } = header.length_verdict(len) {
            return Err(CompareError::Truncated { model: model_name(), path: path(), expected, actual });
        }
        Ok(Opened { model, file, len, header })
    }

    pub(super) fn path(&self) -> &'a str {
        &self.file.path
    }

    /// Where in the file the tensors' data begins.
    pub(super) fn data_start(&self) -> u64 {
        self.header.header_len + 8
    }

    /// Whether the two are known to have the same content, without a look at it.
    fn is_known_equal(&self, other: &Opened<'_>) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        self.len == other.len
            && (self.file.identity == other.file.identity
                || same(&self.file.blob, &other.file.blob)
                || same(&self.file.blake3, &other.file.blake3))
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<(), CompareError> {
        self.file.file.read_exact_at(buffer, offset).map_err(|source| {
            let (model, path) = (self.model.to_owned(), self.file.path.clone());
            // It was long enough when its header was read, and another program has shortened it since.
            if source.kind() == io::ErrorKind::UnexpectedEof {
                let actual = self.file.file.metadata().map_or(offset, |metadata| metadata.len());
                CompareError::Truncated { model, path, expected: self.header.file_len_expected(), actual }
            } else {
                CompareError::Read { model, path, source }
            }
        })
    }
}

/// Reads a file from its start, whatever its cursor.
struct FromStart<'a> {
    file: &'a File,
    position: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Room for a piece of each of two tensors, allocated when first needed.
#[derive(Default)]
pub(super) struct Buffers {
    model: Vec<u8>,
    base: Vec<u8>,
}

/// Whether the two tensors of `pair` differ in any byte.
pub(super) fn differ(
    pair: &Pair<'_>,
    buffers: &mut Buffers,
    step: &(dyn Fn(u64) -> bool + Sync),
) -> Result<bool, CompareError> {
    let report = |bytes| if step(bytes) { Ok(()) } else { Err(CompareError::Interrupted) };
    let (model, base, len) = (&pair.model, &pair.base, pair.model.len());
    if model.start() == base.start() && model.file.is_known_equal(base.file) {
        report(len)?;
        return Ok(false);
    }
    let mut done = 0;
    while done < len {
        let size = usize::try_from(len - done).map_or(CHUNK, |rest| rest.min(CHUNK));
        if buffers.model.len() < size {
            buffers.model.resize(size, 0);
            buffers.base.resize(size, 0);
        }
        let (ours, theirs) = (&mut buffers.model[..size], &mut buffers.base[..size]);
        model.file.fill(ours, model.start() + done)?;
        base.file.fill(theirs, base.start() + done)?;
        if ours != theirs {
            report(len - done)?;
            return Ok(true);
        }
        done += size as u64;
        report(size as u64)?;
    }
    Ok(false)
}
