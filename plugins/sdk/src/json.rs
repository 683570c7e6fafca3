//! JSON, in as little code as settings and answers need: a plugin with `serde_json` is 45 kB larger.
//!
//! ```
//! use blockmill_sdk::{Json, json};
//!
//! let answer = json!({ "height": 7, "fees": [1, 2.5, null], "tip": { "hash": "ab" } });
//! assert_eq!(answer.to_string(), r#"{"height":7,"fees":[1,2.5,null],"tip":{"hash":"ab"}}"#);
//! assert_eq!(Json::parse(&answer.to_string()), Ok(answer));
//! ```

mod read;
mod write;

use std::fmt;
use std::ops::Index;

use self::read::{MAX_DEPTH, Reader};
use self::write::{digits, quoted, real};

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// A negative whole number.
    Negative(i64),
    /// A number with a fraction or an exponent, or too large for the others. At most nine digits behind the point are written,
    /// and fifteen in all; one that is not finite is written as `null`.
    Real(f64),
    /// A text.
    String(String),
    /// `[…]`
    Array(Vec<Json>),
    /// `{…}`
    Object(Object),
}

/// Names and values in the order in which they were put in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

impl Object {
    /// No names.
    pub fn new() -> Self {
        Object(Vec::new())
    }

    /// Sets the value of a name.
    pub fn insert(&mut self, name: String, value: Json) {
        match self.0.iter_mut().find(|(there, _)| *there == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds a name that is known not to be there.
    pub fn push(&mut self, name: impl Into<String>, value: Json) {
        self.0.push((name.into(), value));
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.iter()
            .find(|(there, _)| *there == name)
            .map(|(_, value)| value)
    }

    /// Removes a name.
    pub fn remove(&mut self, name: &str) -> Option<Json> {
        let place = self.0.iter().position(|(there, _)| there == name)?;
        Some(self.0.remove(place).1)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Json {
    /// Reads a text. The error says what is wrong and at which byte.
    pub fn parse(text: &str) -> Result<Json, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(MAX_DEPTH).and_then(|value| {
            reader.space();
            (reader.at == text.len()).then_some(value)
        });
        value.ok_or_else(|| format!("not JSON at byte {}", reader.at))
    }

    /// The value of a name in an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Json::Number(number) => i64::try_from(*number).ok(),
            Json::Negative(number) => Some(*number),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number as f64),
            Json::Negative(number) => Some(*number as f64),
            Json::Real(number) => Some(*number),
            _ => None,
        }
    }

    /// A yes or no.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A list.
    pub fn as_array(&self) -> Option<&Vec<Json>> {
        match self {
            Json::Array(list) => Some(list),
            _ => None,
        }
    }

    /// An object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    /// True for `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// Appends the text.
    pub fn write(&self, to: &mut String) {
        match self {
            Json::Null => to.push_str("null"),
            Json::Bool(true) => to.push_str("true"),
            Json::Bool(false) => to.push_str("false"),
            Json::Number(number) => digits(*number, 1, to),
            Json::Negative(number) => {
                to.push('-');
                digits(number.unsigned_abs(), 1, to);
            }
            Json::Real(number) => real(*number, to),
            Json::String(text) => quoted(text, to),
            Json::Array(list) => {
                to.push('[');
                for (place, value) in list.iter().enumerate() {
                    if place > 0 {
                        to.push(',');
                    }
                    value.write(to);
                }
                to.push(']');
            }
            Json::Object(object) => {
                to.push('{');
                for (place, (name, value)) in object.iter().enumerate() {
                    if place > 0 {
                        to.push(',');
                    }
                    quoted(name, to);
                    to.push(':');
                    value.write(to);
                }
                to.push('}');
            }
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl Index<&str> for Json {
    type Output = Json;
    /// The value of a name; `null` where there is none.
    fn index(&self, name: &str) -> &Json {
        self.get(name).unwrap_or(&Json::Null)
    }
}

impl Index<usize> for Json {
    type Output = Json;
    /// An entry of a list; `null` where there is none.
    fn index(&self, place: usize) -> &Json {
        let entry = self.as_array().and_then(|list| list.get(place));
        entry.unwrap_or(&Json::Null)
    }
}

macro_rules! from {
    ($($of:ty => |$value:ident| $json:expr),+ $(,)?) => {$(
        impl From<$of> for Json {
            fn from($value: $of) -> Json {
                $json
            }
        }
        impl PartialEq<$of> for Json {
            fn eq(&self, other: &$of) -> bool {
                let other = Json::from(other.clone());
                *self == other
            }
        }
    )+};
}
from!(
    bool => |value| Json::Bool(value),
    u8 => |value| Json::Number(value.into()),
    u16 => |value| Json::Number(value.into()),
    u32 => |value| Json::Number(value.into()),
    u64 => |value| Json::Number(value),
    usize => |value| Json::Number(value as u64),
    i32 => |value| i64::from(value).into(),
    i64 => |value| match u64::try_from(value) {
        Ok(number) => Json::Number(number),
        Err(_) => Json::Negative(value),
    },
    f64 => |value| Json::Real(value),
    &str => |value| Json::String(value.into()),
    String => |value| Json::String(value),
);

impl From<&String> for Json {
    fn from(value: &String) -> Json {
        Json::String(value.clone())
    }
}

impl From<&Json> for Json {
    fn from(value: &Json) -> Json {
        value.clone()
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Json {
        Json::Object(object)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Json {
        value.map_or(Json::Null, Into::into)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(list: Vec<T>) -> Json {
        list.into_iter().collect()
    }
}

impl<T: Into<Json>, const N: usize> From<[T; N]> for Json {
    fn from(list: [T; N]) -> Json {
        list.into_iter().collect()
    }
}

impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> Json {
        Json::Array(list.into_iter().map(Into::into).collect())
    }
}

impl FromIterator<(String, Json)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, Json)>>(entries: I) -> Object {
        Object(entries.into_iter().collect())
    }
}

/// For `json!`.
#[doc(hidden)]
pub fn list() -> Vec<Json> {
    Vec::new()
}

/// Makes a [`Json`](crate::Json) that looks as it will be written. Names are single tokens (a literal, the name of a variable,
/// or something in parentheses), values are expressions, `null`, `[…]` or `{…}`.
#[macro_export]
macro_rules! json {
    (null) => { $crate::Json::Null };
    ([ $($inside:tt)* ]) => {{
        #[allow(unused_mut)]
        let mut list = $crate::json::list();
        $crate::json!(@list list $($inside)*);
        $crate::Json::Array(list)
    }};
    ({ $($inside:tt)* }) => {{
        #[allow(unused_mut)]
        let mut object = $crate::Object::new();
        $crate::json!(@object object $($inside)*);
        $crate::Json::Object(object)
    }};

    (@list $list:ident) => {};
    (@list $list:ident null $(, $($rest:tt)*)?) => {
        $list.push($crate::Json::Null);
        $crate::json!(@list $list $($($rest)*)?);
    };
    (@list $list:ident [ $($inside:tt)* ] $(, $($rest:tt)*)?) => {
        $list.push($crate::json!([ $($inside)* ]));
        $crate::json!(@list $list $($($rest)*)?);
    };
    (@list $list:ident { $($inside:tt)* } $(, $($rest:tt)*)?) => {
        $list.push($crate::json!({ $($inside)* }));
        $crate::json!(@list $list $($($rest)*)?);
    };
    (@list $list:ident $value:expr $(, $($rest:tt)*)?) => {
        $list.push($crate::Json::from($value));
        $crate::json!(@list $list $($($rest)*)?);
    };

    (@object $object:ident) => {};
    (@object $object:ident $name:tt : null $(, $($rest:tt)*)?) => {
        $object.push($name, $crate::Json::Null);
        $crate::json!(@object $object $($($rest)*)?);
    };
    (@object $object:ident $name:tt : [ $($inside:tt)* ] $(, $($rest:tt)*)?) => {
        $object.push($name, $crate::json!([ $($inside)* ]));
        $crate::json!(@object $object $($($rest)*)?);
    };
    (@object $object:ident $name:tt : { $($inside:tt)* } $(, $($rest:tt)*)?) => {
        $object.push($name, $crate::json!({ $($inside)* }));
        $crate::json!(@object $object $($($rest)*)?);
    };
    (@object $object:ident $name:tt : $value:expr $(, $($rest:tt)*)?) => {
        $object.push($name, $crate::Json::from($value));
        $crate::json!(@object $object $($($rest)*)?);
    };

    ($value:expr) => { $crate::Json::from($value) };
}

pub use crate::json;

#[cfg(test)]
mod tests;
