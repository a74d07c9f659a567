//! What serde says about wrong input, without the input.

/// serde's message with the offending value taken out: it may be a token that landed in the wrong field.
pub(crate) fn without_value(message: &str) -> String {
    let expected = message.split_once(", expected ").map(|(_, expected)| expected);
    let text = match expected {
        Some(expected) if message.starts_with("invalid ") || message.starts_with("unknown variant") => {
            // The custom visitors say "must be …", which reads badly after "expected".
            if expected.starts_with("must ") { expected.to_owned() } else { format!("expected {expected}") }
        }
        _ => message.to_owned(),
    };
    // serde_json appends its position, counted within the value where a parent field was buffered: it would mislead.
    let text = match text.rsplit_once(" at line ") {
        Some((head, _)) => head.to_owned(),
        None => text,
    };
    if holds_token(&text) { "has a wrong value".into() } else { text.chars().take(300).collect() }
}

/// Whether a refresh token, an API key or a JWT may be in there.
pub(crate) fn holds_token(text: &str) -> bool {
    ["rkr_", "rkk_", "eyJ"].iter().any(|prefix| text.contains(prefix))
}

#[cfg(test)]
mod tests {
    use super::without_value;

    #[test]
    fn the_value_is_taken_out_and_the_expectation_stays() {
        for (given, said) in [
            ("invalid type: string \"hunter2\", expected u32 at line 1 column 9", "expected u32"),
            ("invalid type: integer `5`, expected must be a time", "must be a time"),
            ("unknown variant `hunter2`, expected `a` or `b`", "expected `a` or `b`"),
            ("unknown field `x`, expected `a`", "unknown field `x`, expected `a`"),
            ("missing field `a` at line 1 column 2", "missing field `a`"),
            ("the tag `rkr_abc` is not 1 to 63", "has a wrong value"),
        ] {
            assert_eq!(without_value(given), said);
        }
    }
}
