//! Figures of several trials, and of this process.

use mlxman_verify::protocol::Rate;

/// The median of several trials, with their spread.
pub(crate) fn rate(mut trials: Vec<f64>, tokens: usize) -> Rate {
    trials.sort_by(f64::total_cmp);
    let middle = trials.len() / 2;
    let median = match trials.len() {
        0 => 0.0,
        n if n % 2 == 1 => trials[middle],
        _ => f64::midpoint(trials[middle - 1], trials[middle]),
    };
    Rate {
        median,
        min: trials.first().copied().unwrap_or(0.0),
        max: trials.last().copied().unwrap_or(0.0),
        trials: u32::try_from(trials.len()).unwrap_or(u32::MAX),
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
    }
}

/// The most memory that this process held, in bytes, where the system tells.
pub(crate) fn peak_of_process() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Memory of the machine, in bytes, where the system tells.
pub(crate) fn memory_of_machine() -> Option<u64> {
    let info = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Which BLAS multiplies matrices on the CPU.
pub(crate) fn blas() -> Option<String> {
    if cfg!(target_os = "macos") {
        return Some("Accelerate".to_owned());
    }
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let libraries =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.contains("blas"));
    let path = libraries.max_by_key(|path| path.contains("openblas"))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let slow =
        if name.contains("openblas") { "" } else { " (the reference one, which is slow: install OpenBLAS)" };
    Some(format!("{name}{slow}"))
}
