//! Tells the linker where the worker finds MLX when it starts, on Linux.

fn main() {
    println!("cargo::rerun-if-env-changed=MLXMAN_MLX_SITE");
    let on_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !on_linux || std::env::var_os("CARGO_FEATURE_MLX").is_none() {
        return;
    }
    // Where `cargo xtask install` puts it, then where `cargo xtask mlx` made it.
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib/mlxman/mlx/lib");
    if let Ok(site) = std::env::var("MLXMAN_MLX_SITE") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{site}/mlx/lib");
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath-link,{site}/mlx_cpu.libs");
    }
}
