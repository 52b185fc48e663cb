//! Reading an answer by way of a tree.
//!
//! What serde derives for a type is compiled for the reader that it is read by, and serde_json's reads structs from lists as
//! well as from objects, parsing inside of each. With forty types that is a sixth of what a browser loads for the console.
//! Here the text becomes a tree first, in one piece of code, and types are read from the tree by a reader that does little.

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::map::Iter as Members;
use serde_json::{Error, Value};

/// A value of JSON text; structs are objects, and enums strings or objects of one member.
///
/// # Errors
///
/// The text is no JSON, or not of this type.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    T::deserialize(Node(&serde_json::from_slice(text)?))
}

#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl Node<'_> {
    #[cold]
    fn wrong(self, expected: &dyn Expected) -> Error {
        Error::invalid_type(
            match self.0 {
                Value::Null => Unexpected::Unit,
                Value::Bool(flag) => Unexpected::Bool(*flag),
                Value::Number(_) => Unexpected::Other("number"),
                Value::String(text) => Unexpected::Str(text),
                Value::Array(_) => Unexpected::Seq,
                Value::Object(_) => Unexpected::Map,
            },
            expected,
        )
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Number(number) = self.0 else { return Err(self.wrong(&visitor)) };
        if let Some(number) = number.as_u64() {
            visitor.visit_u64(number)
        } else if let Some(number) = number.as_i64() {
            visitor.visit_i64(number)
        } else {
            visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn object<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Object { members: members.iter(), value: None }),
            _ => Err(self.wrong(&visitor)),
        }
    }
}

macro_rules! as_number {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.number(visitor)
        }
    )*};
}

macro_rules! as_text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.text(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
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

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, content) = match self.0 {
            Value::String(name) => (name, None),
            Value::Object(members) => match members.iter().next() {
                Some((name, content)) if members.len() == 1 => (name, Some(Node(content))),
                _ => return Err(self.wrong(&"a string or an object of one member")),
            },
            _ => return Err(self.wrong(&"a string or an object of one member")),
        };
        visitor.visit_enum(Variant { name, content })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'a>(std::slice::Iter<'a, Value>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Node(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Object<'a> {
    members: Members<'a>,
    value: Option<&'a Value>,
}

impl<'de> MapAccess<'de> for Object<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.members.next() else { return Ok(None) };
        self.value = Some(value);
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().ok_or_else(|| Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Node(value))
    }
}

struct Variant<'a> {
    name: &'a str,
    content: Option<Node<'a>>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'a>), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content<'a>(Option<Node<'a>>);

impl<'a> Content<'a> {
    fn node(self, expected: &dyn Expected) -> Result<Node<'a>, Error> {
        self.0.ok_or_else(|| Error::invalid_type(Unexpected::UnitVariant, expected))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.0 {
            None | Some(Node(Value::Null)) => Ok(()),
            Some(content) => Err(content.wrong(&"a variant without content")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.node(&"a variant with content")?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.node(&"a variant with several values")?.list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
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

    fn same<T: DeserializeOwned + PartialEq + Debug>(text: &str) -> Result<T, Error> {
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
        let error = read::<Whole>(br#"{"name":"a"}"#).unwrap_err().to_string();
        assert_eq!(error, "missing field `kinds`");
        let error = read::<Vec<u8>>(b"[true]").unwrap_err().to_string();
        assert_eq!(error, "invalid type: boolean `true`, expected u8");
    }
}
