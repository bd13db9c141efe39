//! Matrices: plain or packed.

use mlx_rs::{Array, Dtype, ops};
use mlxman_lm::decoder::{HeadNorm, Linear as Described};

use crate::checkpoint::{Checkpoint, expect_shape};
use crate::error::Result;
use crate::ops::Packed;

/// A matrix product, with or without a bias.
#[derive(Debug)]
pub(crate) struct Linear {
    name: String,
    matrix: Matrix,
    bias: Option<Array>,
}

/// A matrix, or a stack of them, `[…, out, in]`.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Its transpose, ready for products.
    Plain(Array),
    Packed(Packed),
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

    /// `x @ self.T`.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::matmul(x, transposed)?),
            Matrix::Packed(packed) => packed.matmul(x, true),
        }
    }

    /// `x @ self`.
    pub(crate) fn reverse_product(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::matmul(x, transposed.swap_axes(-1, -2)?)?),
            Matrix::Packed(packed) => packed.matmul(x, false),
        }
    }

    /// For each index, `x @ self[index].T`.
    pub(crate) fn gathered(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        match self {
            Matrix::Plain(transposed) => Ok(ops::gather_mm(x, transposed, None, indices, sorted)?),
            Matrix::Packed(packed) => packed.gather_matmul(x, indices, sorted),
        }
    }

    pub(crate) fn arrays<'a>(&'a self, name: &'a str) -> Vec<(String, Array)> {
        match self {
            Matrix::Plain(array) => vec![(format!("{name}.weight"), array.clone())],
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
        let matrix = if described.transposed && from.renamed.contains(&format!("{name}.weight")) {
            let weight = from.take(&format!("{name}.weight"), &[input, described.output])?;
            Matrix::Plain(weight)
        } else {
            Matrix::take(from, &name, &lead, input)?
        };
        let bias = described.bias.then(|| from.take(&format!("{name}.bias"), &lead)).transpose()?;
        Ok(Linear { name, matrix, bias })
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
        match (&self.matrix, &self.bias) {
            (Matrix::Plain(transposed), Some(bias)) => Ok(ops::addmm(bias, x, transposed, 1.0, 1.0)?),
            (matrix, None) => matrix.product(x),
            (matrix, Some(bias)) => Ok(matrix.product(x)?.add(bias)?),
        }
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        let bias = self.bias.iter().map(|bias| (format!("{}.bias", self.name), bias.clone()));
        self.matrix.arrays(&self.name).into_iter().chain(bias).collect()
    }
}

/// A table with a row for each token, which may serve as the output layer too.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Plain(Array),
    Packed(Packed),
}

impl Table {
    pub(crate) fn take(from: &mut Checkpoint, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let packed = from.take_packed(name, &[rows], columns)?;
        let rows = match packed {
            Some(packed) => Rows::Packed(packed),
            None => Rows::Plain(from.take(&format!("{name}.weight"), &[rows, columns])?),
        };
        Ok(Table { name: name.to_owned(), rows })
    }

    /// The rows of some tokens.
    pub(crate) fn lookup(&self, tokens: &Array) -> Result<Array> {
        match &self.rows {
            Rows::Plain(table) => Ok(table.take_axis(tokens, 0)?),
            Rows::Packed(packed) => {
                let dtype = packed.biases.as_ref().map_or(Dtype::Bfloat16, Array::dtype);
                packed.rows(tokens)?.unpacked(dtype)
            }
        }
    }

    /// `x @ table.T`.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        match &self.rows {
            Rows::Plain(table) => Ok(ops::matmul(x, table.transpose()?)?),
            Rows::Packed(packed) => packed.matmul(x, true),
        }
    }

    pub(crate) fn arrays(&self) -> Vec<(String, Array)> {
        match &self.rows {
            Rows::Plain(array) => vec![(format!("{}.weight", self.name), array.clone())],
            Rows::Packed(packed) => {
                let names = ["weight", "scales", "biases"];
                let named = packed.arrays().zip(names);
                named.map(|(array, end)| (format!("{}.{end}", self.name), array.clone())).collect()
            }
        }
    }
}

/// A vector of a size.
pub(crate) fn vector(from: &mut Checkpoint, name: &str, size: usize) -> Result<Array> {
    let array = from.take_if(name).ok_or_else(|| from.missing(name))?;
    expect_shape(name, &array, &[size])?;
    from.cast(array)
}
