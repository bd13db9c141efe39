//! Matrices: plain or packed.

use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::decoder::{HeadNorm, Linear as Described};

use crate::adapter::Lora;
use crate::checkpoint::{Checkpoint, expect_shape};
use crate::error::{EngineError, Kind, Result};
use crate::lanes;
use crate::ops::{Packed, part};

/// A matrix product, with or without a bias.
#[derive(Debug)]
pub(crate) struct Linear {
    name: String,
    matrix: Matrix,
    bias: Option<Array>,
    lora: Option<Lora>,
}

/// A matrix, or a stack of them, `[…, out, in]`.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Its transpose, ready for products.
    Plain(Array),
    Packed(Packed),
    /// Cut by its rows, transposed.
    PlainParts(Vec<Array>),
    /// Cut by its rows.
    PackedParts(Vec<Packed>),
}

impl Matrix {
    /// `lead` is the shape but for the last axis, `input` that.
    pub(crate) fn take(from: &mut Checkpoint, name: &str, lead: &[usize], input: usize) -> Result<Matrix> {
        if let Some(packed) = from.take_packed(name, lead, input)? {
            return Ok(Matrix::Packed(packed));
        }
        let shape: Vec<usize> = lead.iter().copied().chain([input]).collect();
        let weight = from.take(&format!("{name}.weight"), &shape)?;
        Ok(Matrix::Plain(weight.swap_axes(-1, -2)?))
    }

    /// The same matrix, cut for several threads where that is worth it.
    fn cut(self, rows: usize, columns: usize) -> Result<Matrix> {
        let cuts = lanes::cuts(rows, columns);
        if cuts.len() < 2 {
            return Ok(self);
        }
        let parts = cuts.into_iter();
        Ok(match self {
            Matrix::Plain(transposed) => Matrix::PlainParts(
                parts.map(|(start, stop)| part(&transposed, 1, start, stop)).collect::<Result<_>>()?,
            ),
            Matrix::Packed(packed) => Matrix::PackedParts(
                parts.map(|(start, stop)| packed.part(start, stop)).collect::<Result<_>>()?,
            ),
            cut => cut,
        })
    }

    /// `x @ self.T`.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::matmul(x, transposed)?),
            Matrix::Packed(packed) => packed.matmul(x, true),
            Matrix::PlainParts(parts) => {
                lanes::side_by_side(parts, |transposed| Ok(ops::matmul(x, transposed)?))
            }
            Matrix::PackedParts(parts) => lanes::side_by_side(parts, |packed| packed.matmul(x, true)),
        }
    }

    /// `x @ self`.
    pub(crate) fn reverse_product(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::matmul(x, transposed.swap_axes(-1, -2)?)?),
            Matrix::Packed(packed) => packed.matmul(x, false),
            Matrix::PlainParts(_) | Matrix::PackedParts(_) => Err(never_cut()),
        }
    }

    /// Its numbers, `[…, out, in]`.
    fn unpacked(&self) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(transposed.swap_axes(-1, -2)?),
            Matrix::Packed(packed) => packed.unpacked(dtype_of(packed)),
            Matrix::PlainParts(_) | Matrix::PackedParts(_) => Err(never_cut()),
        }
    }

    /// For each index, `x @ self[index].T`.
    pub(crate) fn gathered(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::gather_mm(x, transposed, None, indices, sorted)?),
            Matrix::Packed(packed) => packed.gather_matmul(x, indices, sorted),
            Matrix::PlainParts(_) | Matrix::PackedParts(_) => Err(never_cut()),
        }
    }

    pub(crate) fn arrays<'a>(&'a self, name: &'a str) -> Vec<(String, Array)> {
        match self {
            Matrix::Plain(array) => vec![(format!("{name}.weight"), array.clone())],
            Matrix::PlainParts(parts) => {
                parts.iter().map(|array| (format!("{name}.weight"), array.clone())).collect()
            }
            Matrix::PackedParts(parts) => {
                let names = ["weight", "scales", "biases"];
                let named = parts.iter().flat_map(|packed| packed.arrays().zip(names));
                named.map(|(array, end)| (format!("{name}.{end}"), array.clone())).collect()
            }
            Matrix::Packed(packed) => {
                let names = ["weight", "scales", "biases"];
                packed
                    .arrays()
                    .zip(names)
                    .map(|(array, end)| (format!("{name}.{end}"), array.clone()))
                    .collect()
            }
        }
    }
}

impl Linear {
    pub(crate) fn take(from: &mut Checkpoint, described: &Described) -> Result<Linear> {
        let name = described.name.clone();
        let (lead, input) = ([described.output], described.input);
        let is_transposed = described.transposed && from.renamed.contains(&format!("{name}.weight"));
        let matrix = if is_transposed {
            let weight = from.take(&format!("{name}.weight"), &[input, described.output])?;
            Matrix::Plain(weight)
        } else {
            Matrix::take(from, &name, &lead, input)?
        };
        let lora = from.take_lora(&name, input, described.output)?;
        let lora = lora.map(|lora| lora.over(|| matrix.unpacked(), false)).transpose()?;
        let matrix = if is_transposed { matrix } else { matrix.cut(described.output, input)? };
        let bias = described.bias.then(|| from.take(&format!("{name}.bias"), &lead)).transpose()?;
        Ok(Linear { name, matrix, bias, lora })
    }

    /// With each row of its matrix, or each column, made to have the length one, unless that is packed.
    pub(crate) fn normalised(mut self, of: HeadNorm) -> Result<Linear> {
        if let Matrix::Plain(transposed) = &self.matrix {
            let axis = if of == HeadNorm::Tokens { 0 } else { 1 };
            let single = transposed.as_dtype(Dtype::Float32)?;
            let length = single.square()?.sum_axis(axis, true)?.sqrt()?;
            let length = length.add(Array::from_f32(1e-7))?;
            self.matrix = Matrix::Plain(single.divide(length)?.as_dtype(transposed.dtype())?);
        }
        Ok(self)
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.matrix, &self.bias, &self.lora) {
            (Matrix::Plain(transposed), Some(bias), None) => Ok(ops::addmm(bias, x, transposed, 1.0, 1.0)?),
            (matrix, bias, lora) => {
                let mut out = matrix.product(x)?;
                if let Some(lora) = lora {
                    out = lora.changed(x, &out)?;
                }
                // A magnitude is the matrix's alone, so the bias comes last.
                Ok(match bias {
                    Some(bias) => out.add(bias)?,
                    None => out,
                })
            }
        }
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let bias = self.bias.iter().map(|bias| (format!("{}.bias", self.name), bias.clone()));
        let lora = self.lora.iter().flat_map(|lora| lora.arrays(&self.name));
        self.matrix.arrays(&self.name).into_iter().chain(bias).chain(lora).collect()
    }
}

/// The type of a packed matrix's numbers.
fn dtype_of(packed: &Packed) -> Dtype {
    packed.biases.as_ref().map_or(Dtype::Bfloat16, Array::dtype)
}

/// Stacks of matrices are never cut.
fn never_cut() -> EngineError {
    EngineError::new(Kind::Engine, "a stack of matrices was cut, which is a fault of mlxman")
}

/// A table with a row for each token, which may serve as the output layer too.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    rows: Rows,
    lora: Option<Lora>,
}

#[derive(Debug)]
enum Rows {
    Plain(Array),
    Packed(Packed),
}

impl Table {
    pub(crate) fn take(from: &mut Checkpoint, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let lora = from.take_table_lora(name, rows, columns)?;
        let packed = from.take_packed(name, &[rows], columns)?;
        let rows = match packed {
            Some(packed) => Rows::Packed(packed),
            None => Rows::Plain(from.take(&format!("{name}.weight"), &[rows, columns])?),
        };
        let unpacked = || match &rows {
            Rows::Plain(table) => Ok(table.clone()),
            Rows::Packed(packed) => packed.unpacked(dtype_of(packed)),
        };
        let lora = lora.map(|lora| lora.over(unpacked, true)).transpose()?;
        Ok(Table { name: name.to_owned(), rows, lora })
    }

    /// The rows of some tokens.
    pub(crate) fn lookup(&self, tokens: &Array) -> Result<Array> {
        let out = match &self.rows {
            Rows::Plain(table) => table.take_axis(tokens, 0)?,
            Rows::Packed(packed) => packed.rows(tokens)?.unpacked(dtype_of(packed))?,
        };
        match &self.lora {
            Some(lora) => lora.changed_rows(tokens, &out),
            None => Ok(out),
        }
    }

    /// `x @ table.T`.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        let out = match &self.rows {
            Rows::Plain(table) => ops::matmul(x, table.transpose()?)?,
            Rows::Packed(packed) => packed.matmul(x, true)?,
        };
        match &self.lora {
            Some(lora) => lora.changed_product(x, &out),
            None => Ok(out),
        }
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let mut arrays: Vec<(String, Array)> = match &self.rows {
            Rows::Plain(array) => vec![(format!("{}.weight", self.name), array.clone())],
            Rows::Packed(packed) => {
                let names = ["weight", "scales", "biases"];
                let named = packed.arrays().zip(names);
                named.map(|(array, end)| (format!("{}.{end}", self.name), array.clone())).collect()
            }
        };
        arrays.extend(self.lora.iter().flat_map(|lora| lora.arrays(&self.name)));
        arrays
    }
}

/// A vector of a size.
pub(crate) fn vector(from: &mut Checkpoint, name: &str, size: usize) -> Result<Array> {
    let array = from.take_if(name).ok_or_else(|| from.missing(name))?;
    expect_shape(name, &array, &[size])?;
    from.cast(array)
}
