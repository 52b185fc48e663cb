//! What is wrong with a body, in a client's words: the member, what it must be, and what it is.

use serde::de::DeserializeOwned;

/// Reads JSON. The error names the member that is wrong and knows nothing of how it is read here.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        explain(&path, e.inner())
    })?;
    json.end().map_err(|e| explain("", &e))?;
    Ok(value)
}

fn explain(path: &str, error: &serde_json::Error) -> String {
    if !error.is_data() {
        return format!("the body is not JSON: {error}");
    }
    let text = error.to_string();
    // The place in the text is of no use to those whose client wrote it.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let path = if path == "." { "" } else { path };
    if let Some(field) = text.strip_prefix("missing field ") {
        let dot = if path.is_empty() { "" } else { "." };
        return format!("{path}{dot}{} is missing", field.trim_matches('`'));
    }
    if let Some((found, known)) = unknown(text, "unknown field ") {
        return format!("{found} is not known here; known: {known}");
    }
    let member = if path.is_empty() { "the body" } else { path };
    let mismatch = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    if let Some((found, expected)) = mismatch.and_then(|mismatch| mismatch.rsplit_once(", expected ")) {
        return format!("{member} must be {}, not {}", expectation(expected), finding(found));
    }
    if let Some((found, known)) = unknown(text, "unknown variant ") {
        return format!("{member} must be one of {known}, not '{found}'");
    }
    if text.starts_with("data did not match any variant") {
        return format!("{member} has none of the forms that are known here");
    }
    format!("{member}: {text}")
}

/// What was found where only certain names are known, and which are.
fn unknown(text: &str, what: &str) -> Option<(String, String)> {
    let (found, known) = text.strip_prefix(what)?.split_once(", expected ")?;
    let known = known.trim_start_matches("one of ").replace("` or `", "`, `");
    Some((found.replace('`', ""), known.replace('`', "")))
}

fn expectation(expected: &str) -> String {
    let words = match expected {
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number that is not negative and not too large",
        "i64" | "i32" | "i16" | "i8" | "isize" => "a whole number that is not too large",
        "f64" | "f32" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other if other.starts_with("enum ") || other.contains(" enum ") => "one of the values known here",
        other => other,
    };
    words.to_owned()
}

fn finding(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return format!("'{}'", text.trim_matches('"'));
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        "unit value" => "null".to_owned(),
        other => other.rsplit_once(' ').map_or(other, |(_, value)| value).trim_matches('`').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retinker_wire::model::CreateModelRequest;
    use retinker_wire::training::Datum;

    #[test]
    fn members_are_named_in_plain_words() {
        let whole = "a whole number that is not negative and not too large";
        for (body, expected) in [
            (r#"{"session_id": "s"}"#, "base_model is missing".to_owned()),
            (r#"{"session_id": 5, "base_model": "m"}"#, "session_id must be a string, not 5".to_owned()),
            (
                r#"{"session_id": null, "base_model": "m"}"#,
                "session_id must be a string, not null".to_owned(),
            ),
            (r#"{"model_seq_id": "x"}"#, format!("model_seq_id must be {whole}, not 'x'")),
            (r#"{"model_seq_id": -1}"#, format!("model_seq_id must be {whole}, not -1")),
            (r#"{"model_seq_id": 1.5}"#, format!("model_seq_id must be {whole}, not 1.5")),
            (r#"{"lora_config": {"rank": []}}"#, format!("lora_config.rank must be {whole}, not a list")),
            (r#"{"lora_config": {}}"#, "lora_config.rank is missing".to_owned()),
            (r#"{"lora_config": 7}"#, "lora_config must be an object, not 7".to_owned()),
            ("7", "the body must be an object, not 7".to_owned()),
        ] {
            assert_eq!(read::<CreateModelRequest>(body.as_bytes()).unwrap_err(), expected, "{body}");
        }
        for broken in ["", "{", "{\"session_id\" 5}", "{} x"] {
            let error = read::<serde_json::Value>(broken.as_bytes()).unwrap_err();
            assert!(error.starts_with("the body is not JSON: "), "{error}");
        }
        let nested = r#"{"model_input": {"chunks": 5}, "loss_fn_inputs": {}}"#;
        let error = read::<Datum>(nested.as_bytes()).unwrap_err();
        assert_eq!(error, "model_input.chunks must be a list, not 5");
    }
}
