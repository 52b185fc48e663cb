//! What the languages share in which runs and checkpoints are looked for: words, signs, fields, and how they are compared.

/// Why a query makes no sense; a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The value is none for this field.
    #[error("'{word}' makes no sense: {field} takes {takes}")]
    Value {
        /// The word, as it was written.
        word: String,
        /// Its field.
        field: &'static str,
        /// What the field takes.
        takes: &'static str,
    },
    /// The operator is none for this field.
    #[error("'{word}' makes no sense: {field} is compared by {operators}")]
    Operator {
        /// The word, as it was written.
        word: String,
        /// Its field.
        field: &'static str,
        /// Those that it has.
        operators: &'static str,
    },
    /// A label without a name.
    #[error("'{0}' names no label: write meta.KEY:value or meta.KEY=value")]
    NoLabel(String),
}

/// A word as it was written, without its quotation marks.
pub(super) struct Written {
    pub(super) text: String,
    /// It begins with one, after `-` perhaps: then it is a text, whatever it holds.
    quoted: bool,
    /// A `-` stands before its quotation mark.
    negated: bool,
}

impl Written {
    /// Whether it is turned round, and the rest of it.
    pub(super) fn sign(&self) -> (bool, &str) {
        match self.text.strip_prefix('-') {
            Some(rest) if !self.quoted => (true, rest),
            _ => (self.negated, &self.text),
        }
    }

    /// The field that it seems to mean: letters before an operator. A path or an id is none.
    pub(super) fn seeming_field(&self) -> Option<&str> {
        let (name, rest) = self.sign().1.split_once([':', '=', '<', '>'])?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        (is_name && !self.quoted && !rest.is_empty() && !rest.starts_with("//")).then_some(name)
    }

    /// Its parts, if it begins with one of these fields and an operator.
    pub(super) fn comparison(&self, fields: &[&'static str]) -> Option<Comparison<'_>> {
        if self.quoted {
            return None;
        }
        let (_, word) = self.sign();
        let at = word.find([':', '=', '<', '>'])?;
        let (name, rest) = word.split_at(at);
        let operator =
            [">=", "<=", ":", "=", ">", "<"].into_iter().find(|operator| rest.starts_with(operator))?;
        let value = rest.get(operator.len()..)?;
        let (name, label) = name.split_once('.').unwrap_or((name, ""));
        let field = fields.iter().find(|known| known.eq_ignore_ascii_case(name))?;
        let order = match operator {
            ":" | "=" => Order::Equal,
            ">" => Order::More,
            ">=" => Order::MoreOrEqual,
            "<" => Order::Less,
            _ => Order::LessOrEqual,
        };
        Some(Comparison { word, field, label, holds: operator == ":", order, value })
    }
}

/// The parts of a word with a known field and an operator: `meta.team=x` has the field `meta` and the label `team`.
pub(super) struct Comparison<'a> {
    pub(super) word: &'a str,
    pub(super) field: &'static str,
    pub(super) label: &'a str,
    /// The operator is `:`, which texts take for "holds".
    holds: bool,
    pub(super) order: Order,
    pub(super) value: &'a str,
}

impl Comparison<'_> {
    /// Whether what it is compared with is still to be written.
    pub(super) fn is_unfinished(&self) -> bool {
        self.value.is_empty()
    }

    /// The refusal of its value.
    pub(super) fn wrong(&self, takes: &'static str) -> QueryError {
        QueryError::Value { word: self.word.to_owned(), field: self.field, takes }
    }

    /// The refusal of its operator.
    pub(super) fn wrong_operator(&self, operators: &'static str) -> QueryError {
        QueryError::Operator { word: self.word.to_owned(), field: self.field, operators }
    }

    /// As a text.
    pub(super) fn text(&self) -> Result<Match, QueryError> {
        match (self.order, self.holds) {
            (Order::Equal, true) => Ok(Match::Holds(self.value.to_lowercase())),
            (Order::Equal, false) => Ok(Match::Is(self.value.to_lowercase())),
            _ => Err(self.wrong_operator(": (holds) and = (is)")),
        }
    }

    /// As a time that passes, in milliseconds.
    pub(super) fn duration(&self) -> Result<(Order, i64), QueryError> {
        if self.order == Order::Equal {
            return Err(self.wrong_operator("<, <=, > and >="));
        }
        let ms = milliseconds(self.value).ok_or_else(|| self.wrong("a time such as 30m, 2h or 3d"))?;
        Ok((self.order, ms))
    }

    /// As a size in bytes.
    pub(super) fn size(&self) -> Result<(Order, u64), QueryError> {
        if self.order == Order::Equal {
            return Err(self.wrong_operator("<, <=, > and >="));
        }
        Ok((self.order, bytes(self.value).ok_or_else(|| self.wrong("a size such as 500MB or 1.5GB"))?))
    }
}

/// How a text is compared, in lower case.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Match {
    Holds(String),
    Is(String),
}

impl Match {
    pub(super) fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        match self {
            Self::Holds(wanted) => text.contains(wanted),
            Self::Is(wanted) => text == *wanted,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    More,
    MoreOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    pub(super) fn holds<T: PartialOrd>(self, found: T, wanted: T) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::More => found > wanted,
            Self::MoreOrEqual => found >= wanted,
            Self::Less => found < wanted,
            Self::LessOrEqual => found <= wanted,
        }
    }
}

/// Cuts at blanks outside quotation marks, which are taken out.
pub(super) fn split(text: &str) -> Vec<Written> {
    let mut words = Vec::new();
    let mut word: Option<Written> = None;
    let mut within = false;
    for letter in text.chars() {
        match letter {
            '"' => {
                within = !within;
                let begun = word.get_or_insert(Written { text: String::new(), negated: false, quoted: true });
                if begun.text == "-" {
                    (begun.negated, begun.quoted) = (true, true);
                    begun.text.clear();
                }
            }
            blank if blank.is_whitespace() && !within => words.extend(word.take()),
            letter => {
                let new = Written { text: String::new(), negated: false, quoted: false };
                word.get_or_insert(new).text.push(letter);
            }
        }
    }
    words.extend(word);
    words.retain(|word| !word.text.is_empty() && word.text != "-");
    words
}

/// `90s`, `30m`, `2h`, `3d`, `1w`, in milliseconds; parts of them as `1.5d`.
fn milliseconds(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let number: f64 = text.strip_suffix(unit)?.parse().ok().filter(|number: &f64| *number >= 0.0)?;
    let seconds = match unit.to_ascii_lowercase() {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3_600.0,
        'd' => 86_400.0,
        'w' => 604_800.0,
        _ => return None,
    };
    // Beyond what can be told it is as long as can be told.
    Some((number * seconds * 1000.0) as i64)
}

/// `512`, `34kB`, `1.5GB`, in decimal units, in any case.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let units = [("k", 1e3), ("m", 1e6), ("g", 1e9), ("t", 1e12)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, unit)))
        .unwrap_or((lower, 1.0));
    let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.0)?;
    Some((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn sizes_are_read_in_decimal_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("34kB", Some(34_000)),
            ("1.5GB", Some(1_500_000_000)),
            ("2t", Some(2_000_000_000_000)),
            ("1e99tb", Some(u64::MAX)),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1xb", None),
            ("nan", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
