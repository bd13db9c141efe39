//! Words for people.

/// Bytes, in the unit that a person would choose.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// The name of a signal.
pub(crate) fn signal(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        // 7 and 10 are each other's on Linux and macOS.
        7 if cfg!(target_os = "linux") => "SIGBUS",
        10 if cfg!(target_os = "macos") => "SIGBUS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// The phases of the protocol, as what the worker was doing.
pub(crate) fn phase(phase: &str) -> String {
    match phase {
        "load" => "while it loaded the model".to_owned(),
        "warm_up" => "while it warmed up".to_owned(),
        "prompt" => "while it read the prompt".to_owned(),
        "generate" => "while it generated".to_owned(),
        "answers" => "while it computed the known answers".to_owned(),
        other => format!("in its phase `{other}`"),
    }
}

/// At most so many characters of a text, its end being the part that counts.
pub(crate) fn tail(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(count - most).collect();
    format!("…{kept}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ends() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(14_240_000_000), "14.2 GB");
        assert_eq!(tail("abcdef", 3), "…def");
        assert_eq!(signal(9), "SIGKILL");
    }
}
