//! Reading an answer by way of a tree.
//!
//! What serde derives for a type is compiled for the reader that it is read by, and serde_json's reads structs from lists as
//! well as from objects, parsing inside of each. With forty types that is a sixth of what a browser loads for the console.
//! Here the text becomes a tree first, in one piece of code, and types are read from the tree by a reader that does little, and
//! that knows where in the tree something is wrong.

use std::fmt;

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Value;
use serde_json::map::Iter as Members;

/// A value of JSON text; structs are objects, and enums strings or objects of one member.
///
/// # Errors
///
/// The text is no JSON, or not of this type.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Misread> {
    of(&tree(text)?)
}

/// The text as a tree. Never inlined: it would be there once for each type that is read.
///
/// # Errors
///
/// The text is no JSON.
#[inline(never)]
pub fn tree(text: &[u8]) -> Result<Value, Misread> {
    serde_json::from_slice(text).map_err(|error| Misread::no_json(&error))
}

/// The same of what is a tree already.
///
/// # Errors
///
/// It is not of this type.
pub fn of<T: DeserializeOwned>(tree: &Value) -> Result<T, Misread> {
    T::deserialize(Node(tree))
}

/// Why a text is no value of its type. One pointer wide: every reader of a type carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread(Box<Fault>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    place: String,
    what: String,
    kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    NoJson,
    CutOff,
    OtherType,
}

impl Misread {
    fn no_json(error: &serde_json::Error) -> Self {
        Self(Box::new(Fault {
            place: format!("line {} column {}", error.line(), error.column()),
            // The parser's own words would be in what a browser loads, with those of every error that a system has.
            what: if error.is_eof() { "the text ends in the middle" } else { "this is no JSON" }.to_owned(),
            kind: if error.is_eof() { FaultKind::CutOff } else { FaultKind::NoJson },
        }))
    }

    /// Where: a member, as in `training_runs[3].last_request_time`, or a place in the text.
    pub fn place(&self) -> &str {
        if self.0.place.is_empty() { "the whole" } else { &self.0.place }
    }

    /// What is wrong there.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Whether the text ends in the middle.
    pub fn is_cut_off(&self) -> bool {
        self.0.kind == FaultKind::CutOff
    }

    /// Whether the text is JSON, of something else.
    pub fn is_of_other_type(&self) -> bool {
        self.0.kind == FaultKind::OtherType
    }

    /// The same, seen from what this is a part of.
    fn within(mut self, mut step: String) -> Self {
        let inner = &self.0.place;
        if !inner.is_empty() && !inner.starts_with('[') {
            step.push('.');
        }
        step.push_str(inner);
        self.0.place = step;
        self
    }
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at {}", self.what(), self.place())
    }
}

impl std::error::Error for Misread {}

impl serde::de::Error for Misread {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(Box::new(Fault { place: String::new(), what: what.to_string(), kind: FaultKind::OtherType }))
    }

    // As serde has them, but for numbers, which are not repeated: the code that prints a fraction is large.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unexpected("type", found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unexpected("value", found, expected)
    }
}

impl Misread {
    #[cold]
    #[inline(never)]
    fn unexpected(what: &str, found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(flag) => format!("boolean `{flag}`"),
            Unexpected::Str(text) => format!("string {text:?}"),
            Unexpected::Seq => "list".to_owned(),
            Unexpected::Map => "object".to_owned(),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "number".to_owned(),
            Unexpected::Other(other) => other.to_owned(),
            _ => "something else".to_owned(),
        };
        Self::custom(format_args!("invalid {what}: {found}, expected {expected}"))
    }
}

#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl<'a> Node<'a> {
    /// What was expected is said in words of JSON where they do: a type's own words would be loaded for every type.
    #[cold]
    fn wrong(self, expected: &dyn Expected) -> Misread {
        Misread::invalid_type(
            match self.0 {
                Value::Null => Unexpected::Other("null"),
                Value::Bool(flag) => Unexpected::Bool(*flag),
                Value::Number(_) => Unexpected::Other("number"),
                Value::String(text) => Unexpected::Str(text),
                Value::Array(_) => Unexpected::Seq,
                Value::Object(_) => Unexpected::Map,
            },
            expected,
        )
    }

    fn variant(self) -> Result<Variant<'a>, Misread> {
        match self.0 {
            Value::String(name) => return Ok(Variant { name, content: None }),
            Value::Object(members) if members.len() == 1 => {
                if let Some((name, content)) = members.iter().next() {
                    return Ok(Variant { name, content: Some(Node(content)) });
                }
            }
            _ => {}
        }
        Err(self.wrong(&"a string or an object of one member"))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        let Value::Number(number) = self.0 else { return Err(self.wrong(&visitor)) };
        if let Some(number) = number.as_u64() {
            visitor.visit_u64(number)
        } else if let Some(number) = number.as_i64() {
            visitor.visit_i64(number)
        } else {
            visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items { left: items.iter(), before: 0 }),
            _ => Err(self.wrong(&"a list")),
        }
    }

    fn object<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Object(members) => {
                visitor.visit_map(Object { left: members.iter(), key: "", value: &Value::Null })
            }
            _ => Err(self.wrong(&"an object")),
        }
    }
}

macro_rules! as_number {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
            self.number(visitor)
        }
    )*};
}

macro_rules! as_text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
            self.text(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(_) => self.number(visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::Array(_) => self.list(visitor),
            Value::Object(_) => self.object(visitor),
        }
    }

    as_number! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    as_text! {
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_identifier
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            _ => Err(self.wrong(&"true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.wrong(&"null")),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor.visit_enum(self.variant()?)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_unit()
    }
}

/// What is left of a list. Where something is wrong is found out in one place for all types: a few bytes for each of their
/// members are kilobytes of a page.
struct Items<'a> {
    left: std::slice::Iter<'a, Value>,
    before: usize,
}

impl Items<'_> {
    /// What is wrong with the item that was read last, seen from the list.
    #[cold]
    #[inline(never)]
    fn place(&self, wrong: Misread) -> Misread {
        wrong.within(format!("[{}]", self.before.saturating_sub(1)))
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misread> {
        let Some(item) = self.left.next() else { return Ok(None) };
        self.before += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|wrong| self.place(wrong))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// What is left of an object, and the member that was read last.
struct Object<'a> {
    left: Members<'a>,
    key: &'a str,
    value: &'a Value,
}

impl Object<'_> {
    /// What is wrong with the member that was read last, seen from the object.
    #[cold]
    #[inline(never)]
    fn place(&self, wrong: Misread) -> Misread {
        wrong.within(self.key.to_owned())
    }
}

impl<'de> MapAccess<'de> for Object<'_> {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misread> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        (self.key, self.value) = (key, value);
        let key: StrDeserializer<'_, Misread> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misread> {
        seed.deserialize(Node(self.value)).map_err(|wrong| self.place(wrong))
    }
}

struct Variant<'a> {
    name: &'a str,
    content: Option<Node<'a>>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Misread;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'a>), Misread> {
        let name: StrDeserializer<'_, Misread> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content<'a>(Option<Node<'a>>);

impl<'a> Content<'a> {
    fn node(self, expected: &dyn Expected) -> Result<Node<'a>, Misread> {
        self.0.ok_or_else(|| Misread::invalid_type(Unexpected::UnitVariant, expected))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Misread;

    fn unit_variant(self) -> Result<(), Misread> {
        match self.0 {
            None | Some(Node(Value::Null)) => Ok(()),
            Some(content) => Err(content.wrong(&"a variant without content")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misread> {
        seed.deserialize(self.node(&"a variant with content")?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misread> {
        self.node(&"a variant with several values")?.list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.node(&"a variant with members")?.object(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Of(u8),
        Pair(i64, String),
        Named { x: f64 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Tagged {
        One { a: Option<u64> },
        Two,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Whole {
        name: String,
        #[serde(default)]
        many: Vec<(u32, f32)>,
        flag: Option<bool>,
        kinds: Vec<Kind>,
        tagged: Tagged,
        more: BTreeMap<String, Value>,
        unit: (),
        letter: char,
    }

    fn same<T: DeserializeOwned + PartialEq + Debug>(text: &str) -> Result<T, Misread> {
        let read = read::<T>(text.as_bytes());
        match (&read, serde_json::from_str::<T>(text)) {
            (Ok(read), Ok(known)) => assert_eq!(*read, known),
            (Err(_), Err(_)) => {}
            (read, known) => panic!("{text}: {read:?}, serde_json {known:?}"),
        }
        read
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        let whole = r#"{"name":"a\n\u00e9","many":[[1,2.5],[4294967295,-0.0]],"flag":null,"kinds":["plain",{"of":7},
            {"pair":[-9,"x"]},{"named":{"x":1e300}}],"tagged":{"type":"one","a":18446744073709551615},"more":{"k":[1,{"z":null}]},
            "unknown":{"deep":[1,2]},"unit":null,"letter":"q"}"#;
        same::<Whole>(whole).unwrap();
        same::<Tagged>(r#"{"type":"two"}"#).unwrap();
        same::<Vec<i64>>("[1,-2,9223372036854775807]").unwrap();
        same::<Option<f64>>("3").unwrap();
        for wrong in [
            "[]",
            "{",
            "{\"name\":1}",
            "null",
            "3",
            "\"x\"",
            &whole.replace("7}", "700}"),
            &whole.replace("\"q\"", "\"qq\""),
        ] {
            same::<Whole>(wrong).unwrap_err();
        }
        for wrong in [
            "\"of\"",
            "{\"plain\":1}",
            "{\"of\":1,\"pair\":2}",
            "7",
            "{\"pair\":{}}",
            "{\"named\":[1]}x",
            "\"none\"",
        ] {
            same::<Kind>(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_wrong_member_is_named() {
        for (text, told) in [
            (r#"{"name":"a"}"#, "missing field `kinds`, at the whole"),
            (
                r#"{"name":"a","kinds":["plain",{"of":"x"}]}"#,
                "invalid type: string \"x\", expected u8, at kinds[1]",
            ),
            (r#"{"name":"a","many":[[1,2],[3,null]]}"#, "invalid type: null, expected f32, at many[1][1]"),
            (r#"{"name":"a","many":[7]}"#, "invalid type: number, expected a list, at many[0]"),
            ("[]", "invalid type: list, expected an object, at the whole"),
            ("{\n\"name\":", "the text ends in the middle, at line 2 column 7"),
        ] {
            assert_eq!(read::<Whole>(text.as_bytes()).unwrap_err().to_string(), told);
        }
    }
}
