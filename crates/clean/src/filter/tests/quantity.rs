use chrono::TimeDelta;

use crate::filter::quantity::{
    QuantityError, format_age, format_bytes, format_count, parse_age, parse_bytes, parse_count,
};

#[test]
fn sizes_are_read_exactly() {
    let sizes = [
        ("0", 0),
        ("512", 512),
        ("512 B", 512),
        ("1_000", 1000),
        ("300k", 300_000),
        ("1 KB", 1000),
        ("1.5MB", 1_500_000),
        (".5 mb", 500_000),
        ("1MiB", 1_048_576),
        ("1.1GB", 1_100_000_000),
        ("0.1TB", 100_000_000_000),
        ("1.1GiB", 1_181_116_006),
        ("8.000000000000000001EB", 8_000_000_000_000_000_001),
        ("15.99EiB", 18_435_214_858_663_483_146),
        ("18446744073709551615", u64::MAX),
        (" 2 TiB ", 2 << 40),
    ];
    for (given, bytes) in sizes {
        assert_eq!(parse_bytes(given), Ok(bytes), "{given}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for given in
        ["", " ", "big", "-1", "+1", "1.", "1..2", "1e9", "1,5GB", "_1", "1_", "GB", "0x10", "١GB", "1GBs"]
    {
        assert!(parse_bytes(given).is_err(), "{given}");
    }
    assert!(matches!(parse_bytes("16EiB"), Err(QuantityError::TooLarge { .. })));
    assert!(matches!(parse_bytes("18446744073709551616"), Err(QuantityError::TooLarge { .. })));
    assert!(matches!(parse_bytes("1.5"), Err(QuantityError::Fraction { .. })));
    assert!(matches!(parse_bytes("1.0000000000000000001GB"), Err(QuantityError::TooPrecise { .. })));
    assert_eq!(parse_bytes("1.0"), Ok(1));
    let message = parse_bytes("5 parsecs").unwrap_err().to_string();
    assert!(message.contains("`parsecs`") && message.contains("MiB"), "{message}");
}

#[test]
fn counts_are_read_exactly() {
    let counts = [
        ("7B", 7_000_000_000),
        ("1.5b", 1_500_000_000),
        ("500M", 500_000_000),
        ("8k", 8000),
        ("32Ki", 32_768),
    ];
    for (given, count) in counts {
        assert_eq!(parse_count(given), Ok(count), "{given}");
    }
    assert!(parse_count("7GB").is_err());
    assert!(parse_count("0.5").is_err());
}

#[test]
fn ages_are_read() {
    let ages = [
        ("45s", 45),
        ("90m", 5400),
        ("12h", 43_200),
        ("1.5d", 129_600),
        ("2w", 1_209_600),
        ("6mo", 15_552_000),
        ("1y", 31_536_000),
        ("3 days", 259_200),
        ("0", 0),
    ];
    for (given, seconds) in ages {
        assert_eq!(parse_age(given), Ok(TimeDelta::seconds(seconds)), "{given}");
    }
    assert!(matches!(parse_age("30"), Err(QuantityError::NoUnit { .. })));
    assert!(matches!(parse_age("6M"), Err(QuantityError::UnknownUnit { .. })), "minutes or months?");
    assert!(matches!(parse_age("999999999999999999y"), Err(QuantityError::TooLarge { .. })));
}

#[test]
fn sizes_are_written_with_three_digits() {
    let sizes = [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (9995, "10 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4_700_000_000, "4.7 GB"),
        (999_999_999, "1 GB"),
        (1_000_000_000_000, "1 TB"),
        (u64::MAX, "18.4 EB"),
    ];
    for (bytes, text) in sizes {
        assert_eq!(format_bytes(bytes), text);
    }
}

#[test]
fn counts_and_ages_are_written_briefly() {
    assert_eq!(format_count(1_240_000_000), "1.24B");
    assert_eq!(format_count(999), "999");
    assert_eq!(format_count(999_999), "1M");
    assert_eq!(format_count(8000), "8k");
    assert_eq!(format_count(u64::MAX), "18446744T");
    let ages =
        [(-5, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (86_400 * 59, "59d"), (86_400 * 364, "12mo")];
    for (seconds, text) in ages {
        assert_eq!(format_age(TimeDelta::seconds(seconds)), text);
    }
    assert_eq!(format_age(TimeDelta::days(800)), "2y");
}
