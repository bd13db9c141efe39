//! The process that a model is loaded in: `mlxman verify` starts it, and talks with it as
//! [`mlxman_verify::protocol`] says.
fn main() {}
