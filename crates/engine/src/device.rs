//! What MLX computes on.
#![expect(unsafe_code, reason = "mlx-rs has no safe form of these")]

use mlx_rs::{Array, memory};

use crate::error::Result;
use crate::lanes;

/// What MLX computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// MLX's version.
    pub mlx_version: String,
    /// `cpu` or `gpu`.
    pub name: String,
    /// Bytes that MLX may take of it, where MLX sets a limit.
    pub memory_bytes: Option<u64>,
}

impl Device {
    /// Whether half types are slow on it.
    pub fn prefers_float32(&self) -> bool {
        self.name == "cpu"
    }
}

/// Starts MLX. To be called before anything else here: it makes MLX's errors into results.
///
/// # Errors
/// When MLX cannot compute a sum.
pub fn start() -> Result<Device> {
    Array::from_f32(1.0).add(Array::from_f32(1.0))?.eval()?;
    let device = mlx_rs::Device::try_default()?;
    let name = match device.get_type()? {
        mlx_rs::DeviceType::Gpu => "gpu",
        _ => "cpu",
    };
    if name == "cpu" {
        lanes::open();
    }
    let limit = memory::memory_limit().ok().filter(|limit| *limit > 0).map(|limit| limit as u64);
    let memory_bytes = limit.filter(|_| name != "cpu");
    Ok(Device { mlx_version: version(), name: name.to_owned(), memory_bytes })
}

fn version() -> String {
    // SAFETY: the string is made, read while it lives, and freed once.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let mut version = String::new();
        if mlx_sys::mlx_version(&mut text) == 0 {
            let data = mlx_sys::mlx_string_data(text);
            if !data.is_null() {
                version = std::ffi::CStr::from_ptr(data).to_string_lossy().into_owned();
            }
        }
        mlx_sys::mlx_string_free(text);
        version
    }
}

/// The most bytes that MLX held since it was asked to forget.
pub fn peak_bytes() -> u64 {
    memory::peak_memory().unwrap_or(0) as u64
}

/// Forgets the most bytes, and gives back what is kept for later.
pub fn reset_peak() {
    // Where MLX cannot, its figure is only greater than it need be.
    let _ = memory::clear_cache();
    let _ = memory::reset_peak_memory();
}
