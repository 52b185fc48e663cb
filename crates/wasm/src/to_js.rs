//! Rust's values as JavaScript programs expect them: members in camelCase, labels under the names that people gave them, times
//! as `Date`, what is not there left out.

use std::fmt;

use js_sys::{Array, Date, Object, Reflect, Uint8Array};
use serde::ser::{self, Serialize};
use wasm_bindgen::JsValue;

/// This value in JavaScript's idiom.
pub(crate) fn to_js<T: Serialize + ?Sized>(value: &T) -> Result<JsValue, Unwritable> {
    value.serialize(Writer)
}

/// What cannot be said in JavaScript; nothing of the core's is.
#[derive(Debug)]
pub(crate) struct Unwritable(String);

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A member's name: `last_request_time` is `lastRequestTime`.
fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut up = false;
    for letter in name.chars() {
        if letter == '_' && !camel.is_empty() {
            up = true;
        } else if std::mem::take(&mut up) {
            camel.push(letter.to_ascii_uppercase());
        } else {
            camel.push(letter);
        }
    }
    camel
}

fn set(object: &Object, name: &JsValue, value: &JsValue) {
    // A plain object of our own takes every member.
    let _ = Reflect::set(object, name, value);
}

/// An object with one member.
fn only(name: &str, value: &JsValue) -> JsValue {
    let object = Object::new();
    set(&object, &JsValue::from_str(name), value);
    object.into()
}

struct Writer;

/// A list under way, with the name of the variant that it belongs to, if it does.
struct List(Array, Option<&'static str>);

/// An object under way, likewise, with the key whose value comes next.
struct Members {
    object: Object,
    variant: Option<&'static str>,
    key: JsValue,
}

impl Members {
    fn new(variant: Option<&'static str>) -> Self {
        Self { object: Object::new(), variant, key: JsValue::UNDEFINED }
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unwritable> {
        let value = to_js(value)?;
        if !value.is_undefined() {
            set(&self.object, &JsValue::from_str(&camel(name)), &value);
        }
        Ok(())
    }

    fn done(self) -> JsValue {
        let object = self.object.into();
        self.variant.map_or_else(|| JsValue::clone(&object), |name| only(name, &object))
    }
}

macro_rules! numbers {
    ($($method:ident: $type:ty),+) => {$(
        fn $method(self, value: $type) -> Result<JsValue, Unwritable> {
            Ok(JsValue::from_f64(value as f64))
        }
    )+};
}

impl ser::Serializer for Writer {
    type Ok = JsValue;
    type Error = Unwritable;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Members;
    type SerializeStruct = Members;
    type SerializeStructVariant = Members;

    numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64
    }

    fn serialize_bool(self, value: bool) -> Result<JsValue, Unwritable> {
        Ok(JsValue::from_bool(value))
    }

    fn serialize_char(self, value: char) -> Result<JsValue, Unwritable> {
        Ok(JsValue::from_str(value.encode_utf8(&mut [0; 4])))
    }

    fn serialize_str(self, value: &str) -> Result<JsValue, Unwritable> {
        Ok(JsValue::from_str(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<JsValue, Unwritable> {
        Ok(Uint8Array::from(value).into())
    }

    fn serialize_none(self) -> Result<JsValue, Unwritable> {
        Ok(JsValue::UNDEFINED)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<JsValue, Unwritable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<JsValue, Unwritable> {
        Ok(JsValue::NULL)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<JsValue, Unwritable> {
        Ok(JsValue::NULL)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<JsValue, Unwritable> {
        Ok(JsValue::from_str(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<JsValue, Unwritable> {
        let inner = value.serialize(self)?;
        Ok(if name == "Time" { Date::new(&inner).into() } else { inner })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<JsValue, Unwritable> {
        Ok(only(variant, &value.serialize(self)?))
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<List, Unwritable> {
        Ok(List(Array::new(), None))
    }

    fn serialize_tuple(self, _length: usize) -> Result<List, Unwritable> {
        Ok(List(Array::new(), None))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _length: usize) -> Result<List, Unwritable> {
        Ok(List(Array::new(), None))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<List, Unwritable> {
        Ok(List(Array::new(), Some(variant)))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Members, Unwritable> {
        Ok(Members::new(None))
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Members, Unwritable> {
        Ok(Members::new(None))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Members, Unwritable> {
        Ok(Members::new(Some(variant)))
    }
}

macro_rules! list {
    ($($trait:ident: $method:ident),+) => {$(
        impl ser::$trait for List {
            type Ok = JsValue;
            type Error = Unwritable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
                self.0.push(&to_js(value)?);
                Ok(())
            }

            fn end(self) -> Result<JsValue, Unwritable> {
                let list = self.0.into();
                Ok(self.1.map_or_else(|| JsValue::clone(&list), |name| only(name, &list)))
            }
        }
    )+};
}

list! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field
}

macro_rules! members {
    ($($trait:ident),+) => {$(
        impl ser::$trait for Members {
            type Ok = JsValue;
            type Error = Unwritable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unwritable> {
                self.member(name, value)
            }

            fn end(self) -> Result<JsValue, Unwritable> {
                Ok(self.done())
            }
        }
    )+};
}

members! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Members {
    type Ok = JsValue;
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritable> {
        self.key = to_js(key)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        // `__proto__` of somebody's labels is a label like others.
        let value = to_js(value)?;
        let property = Object::new();
        for (name, part) in [
            ("value", &value),
            ("enumerable", &JsValue::TRUE),
            ("writable", &JsValue::TRUE),
            ("configurable", &JsValue::TRUE),
        ] {
            set(&property, &JsValue::from_str(name), part);
        }
        Object::define_property(&self.object, &self.key, &property);
        Ok(())
    }

    fn end(self) -> Result<JsValue, Unwritable> {
        Ok(self.done())
    }
}
