//! Language models, without running them: what each family's decoder is made of, which tensors it needs, how its
//! tokenizer and its chat template turn a user's words into a prompt.
//!
//! [`families::describe`] turns a `config.json` into a [`decoder::Decoder`], a description made of parts.
//! `mlxman-engine` runs such a description on MLX, and `mlxman-verify` compares it with the tensors of a checkpoint.

pub mod chat;
pub mod config;
pub mod decoder;
pub mod families;
pub mod files;
mod rope;
pub mod tensors;
pub mod tokenizer;
