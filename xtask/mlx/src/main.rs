//! Makes what mlx-sys's own build script makes on a Mac: the static library of mlx-c, and its bindings.
//!
//! A program of its own, because bindgen takes long to compile and is needed once.
#![expect(clippy::print_stderr, reason = "a program for a terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

/// Compiles mlx-c and writes its bindings.
#[derive(Parser)]
struct Args {
    /// The sources of mlx-c, in the package mlx-sys
    #[arg(long)]
    mlx_c: PathBuf,
    /// The directory that holds MLX's headers
    #[arg(long)]
    include: PathBuf,
    /// The directory that holds libclang
    #[arg(long)]
    libclang: PathBuf,
    /// The machine, as rustc names it
    #[arg(long)]
    target: String,
    /// Where `lib/libmlxc.a` and `bindings/bindings.rs` go
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let shim = args.out.join("shim.h");
    fs_err::create_dir_all(args.out.join("lib"))?;
    fs_err::create_dir_all(args.out.join("bindings"))?;
    fs_err::write(&shim, include_str!("shim.h"))?;
    compile(args, &shim)?;
    bind(args, &shim)
}

/// `lib/libmlxc.a`.
fn compile(args: &Args, shim: &Path) -> Result<()> {
    let sources = with_extension(&args.mlx_c.join("mlx/c"), "cpp")?;
    let objects = args.out.join("objects");
    fs_err::create_dir_all(&objects)?;
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .pic(true)
        .warnings(false)
        .cargo_metadata(false)
        .target(&args.target)
        .host(&args.target)
        .out_dir(&objects)
        .include(&args.mlx_c)
        .include(&args.include)
        .flag("-include")
        .flag(shim)
        .files(sources);
    let compiler = build.try_get_compiler().context(
        "there is no C++ compiler; install g++ or clang (on Debian and Ubuntu: the package `g++`), or name one in CXX",
    )?;
    build.try_compile("mlxc").with_context(|| {
        format!("mlx-c could not be compiled with `{}` (it needs C++20)", compiler.path().display())
    })?;
    fs_err::rename(objects.join("libmlxc.a"), args.out.join("lib/libmlxc.a"))?;
    fs_err::remove_dir_all(objects)?;
    Ok(())
}

/// `bindings/bindings.rs`, with mlx-sys's own settings.
fn bind(args: &Args, shim: &Path) -> Result<()> {
    // SAFETY: this program has one thread here.
    #[expect(unsafe_code, reason = "bindgen reads the place of libclang from the environment alone")]
    unsafe {
        std::env::set_var("LIBCLANG_PATH", &args.libclang);
    }
    let mut builder = bindgen::Builder::default()
        .rust_target("1.73.0".parse().ok().context("a version of Rust")?)
        .clang_arg(format!("-I{}", args.mlx_c.display()))
        .clang_args(["-include", &shim.to_string_lossy()])
        .clang_arg("-DMLXMAN_BINDGEN")
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    // The wheel of libclang comes without the compiler's own headers.
    if let Some(include) = compiler_headers() {
        builder = builder.clang_arg("-isystem").clang_arg(include);
    }
    for header in with_extension(&args.mlx_c.join("mlx/c"), "h")? {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = builder.generate().context("the bindings of mlx-c could not be made")?;
    bindings.write_to_file(args.out.join("bindings/bindings.rs"))?;
    Ok(())
}

/// Where the C compiler keeps `stddef.h` and its like.
fn compiler_headers() -> Option<String> {
    let output = std::process::Command::new("cc").arg("-print-file-name=include").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}

fn with_extension(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} holds no .{extension} file", dir.display());
    }
    files.sort();
    Ok(files)
}
