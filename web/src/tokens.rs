//! What is asked of a model that is tried, and its tokens and their scores in words.

use std::fmt::Write as _;

use retinker::host::samples::{Decimal, SampleRequest, SampleToken};

/// What a person has written. Empty fields mean what is usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// A text, or token numbers.
    pub prompt: String,
    /// Whether the prompt is token numbers.
    pub is_numbers: bool,
    /// A whole number.
    pub max_tokens: String,
    /// A whole number.
    pub num_samples: String,
    /// A number.
    pub temperature: String,
    /// A number.
    pub top_p: String,
    /// A whole number.
    pub top_k: String,
    /// A whole number.
    pub seed: String,
    /// Whether the prompt is scored too.
    pub prompt_logprobs: bool,
}

impl Form {
    /// What it is before anybody has written anything.
    pub fn usual() -> Self {
        Self { max_tokens: "64".to_owned(), num_samples: "1".to_owned(), ..Self::default() }
    }

    /// What to ask the host for; what makes no sense is told in a sentence.
    ///
    /// # Errors
    /// A field cannot be read.
    pub fn request(&self, source: &str) -> Result<SampleRequest, String> {
        let source = source.trim();
        if source.is_empty() {
            return Err("Say what to sample from.".to_owned());
        }
        if self.prompt.is_empty() {
            return Err("Write a prompt.".to_owned());
        }
        let tokens = if self.is_numbers { numbers(&self.prompt)? } else { Vec::new() };
        let decimal =
            |text: &str| Some(Decimal(text.trim().replace(',', "."))).filter(|text| !text.0.is_empty());
        Ok(SampleRequest {
            source: source.to_owned(),
            prompt: if self.is_numbers { String::new() } else { self.prompt.clone() },
            tokens,
            max_tokens: number("Most tokens", &self.max_tokens)?,
            num_samples: number("Samples", &self.num_samples)?,
            temperature: decimal(&self.temperature),
            top_p: decimal(&self.top_p),
            top_k: whole("Top-k", &self.top_k)?,
            seed: whole("Seed", &self.seed)?,
            prompt_logprobs: self.prompt_logprobs,
        })
    }
}

fn whole(name: &str, text: &str) -> Result<Option<i64>, String> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{name} must be a whole number.")),
    }
}

/// How many; one beyond all bounds is for the host to refuse.
fn number(name: &str, text: &str) -> Result<Option<u32>, String> {
    match whole(name, text)? {
        Some(number) if number < 0 => Err(format!("{name} must not be below zero.")),
        number => Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX))),
    }
}

fn numbers(text: &str) -> Result<Vec<i32>, String> {
    let words = text.split(|letter: char| letter.is_whitespace() || ",[]".contains(letter));
    let numbers: Result<Vec<i32>, _> = words.filter(|word| !word.is_empty()).map(str::parse).collect();
    match numbers {
        Ok(numbers) if !numbers.is_empty() => Ok(numbers),
        _ => Err("Token numbers are whole numbers with blanks or commas between them.".to_owned()),
    }
}

/// How probable a token was, in five steps: 4 for at least 90 %, then 50 %, 10 %, 1 %, and 0 for less; `None` without a
/// score.
pub fn shade(logprob: Option<f32>) -> Option<u8> {
    let probability = logprob?.exp();
    let steps = [(4, 0.9), (3, 0.5), (2, 0.1), (1, 0.01)];
    Some(steps.into_iter().find(|(_, least)| probability >= *least).map_or(0, |(step, _)| step))
}

/// The names of the steps of [`shade`], from the most probable.
pub const SHADES: [(u8, &str); 5] = [(4, "90 % or more"), (3, "50 %"), (2, "10 %"), (1, "1 %"), (0, "less")];

/// A logarithm with three digits after the point. In whole numbers, since the code that prints a fraction is large.
pub fn logprob(value: f32) -> String {
    #[allow(clippy::cast_possible_truncation)] // A cast from a float is held to the range.
    let thousandths = (value * -1000.0 + 0.5) as i64;
    let sign = if thousandths > 0 { "−" } else { "" };
    let size = thousandths.max(0);
    format!("{sign}{}.{:03}", size / 1000, size % 1000)
}

/// A probability in per cent, from its logarithm.
pub fn percent(logprob: f32) -> String {
    #[allow(clippy::cast_possible_truncation)] // A cast from a float is held to the range.
    let tenths = (logprob.min(0.0).exp() * 1000.0 + 0.5) as i64;
    match tenths {
        0 => "< 0.1 %".to_owned(),
        1000 => "100 %".to_owned(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// A token's text so that all of it is seen: what has no form of its own, or turns the direction of what follows, by its
/// name.
pub fn visible(token: &SampleToken, has_text: bool) -> String {
    if !has_text {
        return format!("{} ", token.id);
    }
    if token.text.is_empty() {
        return "·".to_owned();
    }
    let mut seen = String::with_capacity(token.text.len());
    for letter in token.text.chars() {
        match letter {
            '\n' => seen.push_str("⏎\n"),
            '\t' => seen.push('\t'),
            letter if letter.is_control() || is_bidi(letter) => {
                let _ = write!(seen, "⟨{:02X}⟩", u32::from(letter));
            }
            letter => seen.push(letter),
        }
    }
    seen
}

fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A token in a sentence.
pub fn told(at: usize, of: usize, token: &SampleToken, has_text: bool) -> String {
    let text = if has_text && !token.text.is_empty() {
        format!("“{}”, ", visible(token, true).replace('\n', ""))
    } else {
        String::new()
    };
    let score = match token.logprob {
        Some(value) => format!("log-probability {}, {}", logprob(value), percent(value)),
        None => "no score".to_owned(),
    };
    format!("Token {} of {of}: {text}number {}, {score}", at + 1, token.id)
}

/// The whole text.
pub fn whole_text(tokens: &[SampleToken]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form { prompt: "Tell me".into(), ..Form::default() }
    }

    #[test]
    fn empty_fields_mean_what_is_usual() {
        let request = form().request(" base ").unwrap();
        assert_eq!(
            request,
            SampleRequest { source: "base".into(), prompt: "Tell me".into(), ..SampleRequest::default() }
        );
    }

    #[test]
    fn fields_are_read_or_told() {
        let filled = Form {
            max_tokens: " 12 ".into(),
            num_samples: "2".into(),
            temperature: "0,7".into(),
            top_p: "0.9".into(),
            top_k: "40".into(),
            seed: "7".into(),
            prompt_logprobs: true,
            ..form()
        };
        let request = filled.request("m").unwrap();
        assert_eq!(
            (request.max_tokens, request.num_samples, request.top_k, request.seed),
            (Some(12), Some(2), Some(40), Some(7))
        );
        assert_eq!(request.temperature.unwrap().value(), Some(0.7));
        assert!(request.prompt_logprobs);
        assert_eq!(form().request("").unwrap_err(), "Say what to sample from.");
        assert_eq!(Form::default().request("m").unwrap_err(), "Write a prompt.");
        assert!(Form { seed: "x".into(), ..form() }.request("m").unwrap_err().starts_with("Seed"));
    }

    #[test]
    fn prompts_can_be_numbers() {
        let numbered =
            |prompt: &str| Form { prompt: prompt.into(), is_numbers: true, ..Form::default() }.request("m");
        let request = numbered("[1, 2\n 30]").unwrap();
        assert_eq!((request.tokens, request.prompt.as_str()), (vec![1, 2, 30], ""));
        assert!(numbered("one").is_err() && numbered("[]").is_err() && numbered("99999999999").is_err());
    }

    #[test]
    fn scores_in_steps_and_words() {
        for (value, step, text, chance) in [
            (0.0_f32, 4, "0.000", "100 %"),
            (-0.1, 4, "−0.100", "90.5 %"),
            (-0.2, 3, "−0.200", "81.9 %"),
            (-2.0, 2, "−2.000", "13.5 %"),
            (-4.6, 1, "−4.600", "1.0 %"),
            (-12.3456, 0, "−12.346", "< 0.1 %"),
            (f32::NEG_INFINITY, 0, "−9223372036854775.807", "< 0.1 %"),
        ] {
            assert_eq!(shade(Some(value)), Some(step));
            assert_eq!(logprob(value), text);
            assert_eq!(percent(value), chance);
        }
        assert_eq!(shade(None), None);
    }

    #[test]
    fn everything_in_a_token_is_seen() {
        let token = |text: &str| SampleToken { id: 65, text: text.into(), logprob: Some(-0.5) };
        assert_eq!(visible(&token("a\n"), true), "a⏎\n");
        assert_eq!(visible(&token("\u{0}\u{202e}x"), true), "⟨00⟩⟨202E⟩x");
        assert_eq!(visible(&token(""), true), "·");
        assert_eq!(visible(&token("a"), false), "65 ");
        assert_eq!(
            told(0, 3, &token("a"), true),
            "Token 1 of 3: “a”, number 65, log-probability −0.500, 60.7 %"
        );
        assert!(
            told(1, 3, &SampleToken { logprob: None, ..token("") }, false).ends_with("number 65, no score")
        );
        assert_eq!(whole_text(&[token("a"), token(""), token("b")]), "ab");
    }
}
