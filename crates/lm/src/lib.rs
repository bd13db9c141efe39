//! Families of language models.
