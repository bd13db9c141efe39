//! The targets: each takes any bytes, and fails by panicking.

/// One parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its corpus' folder.
    pub name: &'static str,
    /// Parses the bytes and panics where the result breaks a promise.
    pub run: fn(&[u8]),
    /// The checked-in inputs, by file name: valid ones, and the nasty ones known so far.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* pub mod $name;)*

        /// Every target.
        pub const ALL: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds },)*];
    };
}

targets! {
    /// JSON of a bounded size.
    config;
    /// A README's front matter.
    front_matter;
    /// A GGUF file.
    gguf_header;
    /// A manifest in the registry.
    manifest;
    /// A safetensors file.
    safetensors_header;
}

/// The target called `name`.
pub fn find(name: &str) -> Option<Target> {
    ALL.iter().copied().find(|target| target.name == name)
}
