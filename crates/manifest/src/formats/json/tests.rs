use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    read_json(bytes, 1 << 20)
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(read(b"\xef\xbb\xbf{\"a\":1}").unwrap(), json!({"a": 1}));
}

#[test]
fn python_numbers_become_null_and_strings_keep_theirs() {
    let text = br#"{"a": NaN, "b": [Infinity, -Infinity,1], "NaN": "a \" Infinity NaN", "c": "\\"}"#;
    let expected = json!({"a": null, "b": [null, null, 1], "NaN": "a \" Infinity NaN", "c": "\\"});
    assert_eq!(read(text).unwrap(), expected);
}

#[test]
fn words_that_only_start_like_pythons_stay_errors() {
    for text in ["{\"a\": NaNs}", "{\"a\": None}", "{\"a\": -Inf}", "NaN NaN", "\"\\", "{\"a\": Infinity"] {
        assert!(matches!(read(text.as_bytes()), Err(JsonError::Syntax { .. })), "{text}");
    }
}

#[test]
fn a_later_fault_is_reported_where_it_is() {
    let Err(JsonError::Syntax { line, column, msg }) = read(b"{\n\"a\": NaN,\n\"b\": x}") else {
        panic!("not a syntax error")
    };
    assert_eq!((line, column, msg.as_str()), (3, 6, "expected value"));
}

#[test]
fn the_limit_is_the_largest_size_allowed() {
    assert!(read_json::<Value>(&b"[1]"[..], 3).is_ok());
    assert!(matches!(read_json::<Value>(&b"[1]"[..], 2), Err(JsonError::TooLarge { limit: 2 })));
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        let error = read(text.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string().split(',').next().unwrap(),
            "it is not valid JSON: recursion limit exceeded"
        );
    }
}

#[test]
fn bytes_that_are_not_text_are_named_by_their_offset() {
    assert!(matches!(read(b"{\"a\": \"\xff\"}"), Err(JsonError::NotUtf8 { offset: 7 })));
}

#[test]
fn a_wrong_shape_is_told_from_wrong_syntax() {
    assert!(matches!(read_json::<Vec<u8>>(&b"{}"[..], 9), Err(JsonError::Shape { .. })));
    assert!(matches!(read_json::<Value>(&b""[..], 9), Err(JsonError::Syntax { line: 1, column: 0, .. })));
}

#[test]
fn a_reader_that_fails_is_an_io_error() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no"))
        }
    }
    assert!(matches!(read_json::<Value>(Fails, 9), Err(JsonError::Io(_))));
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn nothing_made_of_json_pieces_panics(pieces in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"), Just(":"), Just(","), Just("NaN"),
        Just("-Infinity"), Just("Infinity"), Just("-"), Just("é"), Just("1e999"), Just(" ")], 0..40)) {
        let _ = read(pieces.concat().as_bytes());
    }
}
