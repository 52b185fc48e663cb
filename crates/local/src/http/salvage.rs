//! Whose turn a body was to be that cannot be read: Python writes NaN and Infinity into JSON, others cut it off.

use prost::Message;

/// The run and the number of a request, as far as they can be told from what there is of its body, in either form.
pub(super) fn turn(body: &[u8]) -> Option<(String, u64)> {
    // No message of the protocol begins with a brace: it would be the start of a group, which protobuf has left behind.
    if body.trim_ascii_start().starts_with(b"{") { of_json(body) } else { of_protobuf(body) }
}

/// The members of `ForwardBackwardRequest` that say whose turn it is.
#[derive(Message)]
struct Turn {
    #[prost(string, tag = "1")]
    model_id: String,
    #[prost(int32, tag = "2")]
    seq_id: i32,
}

fn of_protobuf(body: &[u8]) -> Option<(String, u64)> {
    let mut turn = Turn::default();
    // What comes before the damage is read all the same.
    let _ = turn.merge(body);
    let seq = u64::try_from(turn.seq_id).ok()?;
    (!turn.model_id.is_empty() && seq > 0).then_some((turn.model_id, seq))
}

/// From text: the members where they belong. Numbers may be written as `1.0` or as texts.
fn of_json(body: &[u8]) -> Option<(String, u64)> {
    let run = member(body, b"model_id")?;
    let seq = std::str::from_utf8(member(body, b"seq_id")?).ok()?;
    let seq = seq.parse().ok().or_else(|| seq.strip_suffix(".0")?.parse().ok())?;
    Some((String::from_utf8(run.to_vec()).ok()?, seq))
}

/// The value of a member of the outermost object, without quotes.
fn member<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (mut rest, mut depth) = (body, 0);
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let (text, after) = string(after)?;
                rest = after;
                let value = rest.trim_ascii_start().strip_prefix(b":");
                if let (1, true, Some(value)) = (depth, text == name, value) {
                    return scalar(value.trim_ascii_start());
                }
            }
            _ => {}
        }
    }
    None
}

/// A string up to its closing quote, and what follows.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn scalar(value: &[u8]) -> Option<&[u8]> {
    if let Some(text) = value.strip_prefix(b"\"") {
        return Some(string(text)?.0);
    }
    let end = value.iter().position(|byte| b",}] \t\r\n".contains(byte)).unwrap_or(value.len());
    value.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_found_in_what_cannot_be_read() {
        let found = |text: &str| turn(text.as_bytes());
        let expected = Some(("s:train:0".to_owned(), 7));
        for text in [
            r#"{"model_id":"s:train:0","seq_id":7,"adam_params":{"learning_rate":NaN}}"#,
            r#"{"data":[{"seq_id":1,"model_id":"x"},Infinity], "seq_id" : 7 , "model_id" : "s:train:0" }"#,
            r#"{"a":"\"seq_id\":3,{[","seq_id":"7","model_id":"s:train:0""#,
            r#"{"model_id":"s:train:0","seq_id":7.0,"b":[1e999"#,
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        for text in [
            "",
            "[]",
            r#"{"model_id":"a"}"#,
            r#"{"model_id":"a","seq_id":-1}"#,
            r#"{"model_id":"a","seq_id":1.5}"#,
            r#"{"model_id":"a","seq_id":"#,
            r#"[{"model_id":"a","seq_id":1}]"#,
            r#"{"model_id":"a"#,
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn a_turn_is_found_before_the_damage_in_a_message() {
        let whole = Turn { model_id: "s:train:0".to_owned(), seq_id: 7 }.encode_to_vec();
        let expected = Some(("s:train:0".to_owned(), 7));
        assert_eq!(turn(&whole), expected);
        // A batch that claims more bytes than follow.
        assert_eq!(turn(&[whole.as_slice(), &[0x1A, 0x7F, 1, 2]].concat()), expected);
        assert_eq!(turn(&whole[..whole.len() - 1]), None, "without its number");
        assert_eq!(turn(&Turn { model_id: String::new(), seq_id: 7 }.encode_to_vec()), None);
        assert_eq!(turn(&Turn { model_id: "s:train:0".to_owned(), seq_id: -7 }.encode_to_vec()), None);
    }
}
