//! JSON, in as little code as settings and answers need: a plugin with `serde_json` is 45 kB larger.
//!
//! ```
//! use blockmill_sdk::{Json, json};
//!
//! let answer = json!({ "height": 7, "fees": [1, 2.5, null], "tip": { "hash": "ab" } });
//! assert_eq!(answer.to_string(), r#"{"height":7,"fees":[1,2.5,null],"tip":{"hash":"ab"}}"#);
//! assert_eq!(Json::parse(&answer.to_string()), Ok(answer));
//! ```

use std::fmt;
use std::ops::Index;

/// Objects and arrays inside one another that are read; more is an error.
const MAX_DEPTH: u32 = 64;

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

/// Appends a number with at least `least` digits.
fn digits(mut number: u64, least: usize, to: &mut String) {
    let mut reversed = [b'0'; 20];
    let mut count = 0;
    for place in &mut reversed {
        if number == 0 && count >= least {
            break;
        }
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
    }
    to.extend(
        reversed
            .iter()
            .take(count)
            .rev()
            .map(|digit| char::from(*digit)),
    );
}

fn real(mut number: f64, to: &mut String) {
    if !number.is_finite() {
        return to.push_str("null");
    }
    if number < 0.0 {
        to.push('-');
        number = -number;
    }
    let mut exponent = 0;
    while number >= 1e15 {
        number /= 10.0;
        exponent += 1;
    }
    // A double has fifteen digits that can be relied on.
    let decimals = match number {
        n if n < 1e6 => 9,
        n if n < 1e9 => 6,
        n if n < 1e12 => 3,
        _ => 0,
    };
    let unit = 10u64.pow(decimals);
    let mut whole = number as u64;
    let mut fraction = ((number - whole as f64) * unit as f64 + 0.5) as u64;
    if fraction >= unit {
        whole += 1;
        fraction -= unit;
    }
    digits(whole, 1, to);
    to.push('.');
    let start = to.len();
    digits(fraction, decimals.max(1) as usize, to);
    while to.len() > start + 1 && to.ends_with('0') {
        to.pop();
    }
    if exponent > 0 {
        to.push('e');
        digits(exponent, 1, to);
    }
}

fn quoted(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\t' => to.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                to.push_str("\\u00");
                to.push_str(&crate::hex::encode(&[c as u8]));
            }
            c => to.push(c),
        }
    }
    to.push('"');
}

/// Reads a text from front to back.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Goes past `byte` if it is next, white space before it aside.
    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        let there = self.text.get(self.at..)?.starts_with(word);
        self.at += if there { word.len() } else { 0 };
        there.then_some(value)
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        self.space();
        match self.peek()? {
            b'{' => {
                let deeper = depth.checked_sub(1)?;
                self.at += 1;
                let mut object = Object::new();
                if self.eat(b'}') {
                    return Some(Json::Object(object));
                }
                loop {
                    self.space();
                    let name = self.string()?;
                    if !self.eat(b':') {
                        return None;
                    }
                    let value = self.value(deeper)?;
                    object.insert(name, value);
                    if !self.eat(b',') {
                        return self.eat(b'}').then_some(Json::Object(object));
                    }
                }
            }
            b'[' => {
                let deeper = depth.checked_sub(1)?;
                self.at += 1;
                let mut list = Vec::new();
                if self.eat(b']') {
                    return Some(Json::Array(list));
                }
                loop {
                    list.push(self.value(deeper)?);
                    if !self.eat(b',') {
                        return self.eat(b']').then_some(Json::Array(list));
                    }
                }
            }
            b'"' => self.string().map(Json::String),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn string(&mut self) -> Option<String> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            let c = self.text.get(self.at..)?.chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => return Some(text),
                '\\' => text.push(match self.next()? {
                    b'n' => '\n',
                    b't' => '\t',
                    b'r' => '\r',
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'u' => self.escaped()?,
                    c @ (b'"' | b'\\' | b'/') => char::from(c),
                    _ => return None,
                }),
                c if (c as u32) < 0x20 => return None,
                c => text.push(c),
            }
        }
    }

    /// The character of `\uXXXX`, or of two of them where it takes two.
    fn escaped(&mut self) -> Option<char> {
        let first = self.four()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        if self.next()? != b'\\' || self.next()? != b'u' {
            return None;
        }
        let second = self.four()?.checked_sub(0xdc00).filter(|n| *n < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
    }

    fn four(&mut self) -> Option<u32> {
        let mut number = 0;
        for _ in 0..4 {
            number = number << 4 | char::from(self.next()?).to_digit(16)?;
        }
        Some(number)
    }

    fn digit(&mut self) -> Option<u64> {
        let digit = self.peek().filter(u8::is_ascii_digit)?;
        self.at += 1;
        Some(u64::from(digit - b'0'))
    }

    fn number(&mut self) -> Option<Json> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let (mut number, mut exponent, mut whole) = (0u64, 0i32, true);
        let add = |number: &mut u64, digit: u64| {
            let more = number.checked_mul(10).and_then(|n| n.checked_add(digit));
            more.map(|more| *number = more).is_some()
        };
        let first = self.digit()?;
        number += first;
        // No digit follows a leading zero.
        while let Some(digit) = self.digit() {
            if first == 0 {
                return None;
            }
            if !whole || !add(&mut number, digit) {
                // What does not fit is only counted: a double has no place for it.
                whole = false;
                exponent = exponent.saturating_add(1);
            }
        }
        let mut full = !whole;
        if self.peek() == Some(b'.') {
            self.at += 1;
            whole = false;
            let mut digit = Some(self.digit()?);
            while let Some(next) = digit {
                full = full || !add(&mut number, next);
                exponent -= i32::from(!full);
                digit = self.digit();
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            whole = false;
            let sign = self.peek().filter(|sign| matches!(sign, b'+' | b'-'));
            self.at += usize::from(sign.is_some());
            let mut given = self.digit()? as i32;
            while let Some(digit) = self.digit() {
                given = given.saturating_mul(10).saturating_add(digit as i32);
            }
            exponent = exponent.saturating_add(if sign == Some(b'-') { -given } else { given });
        }
        if whole && !negative {
            return Some(Json::Number(number));
        }
        if whole && let Some(signed) = 0i64.checked_sub_unsigned(number) {
            return Some(match signed {
                0 => Json::Real(-0.0),
                signed => Json::Negative(signed),
            });
        }
        let power = power_of_ten(exponent.unsigned_abs());
        let value = if number == 0 {
            0.0
        } else if exponent < 0 {
            number as f64 / power
        } else {
            number as f64 * power
        };
        Some(Json::Real(if negative { -value } else { value }))
    }
}

/// Ten to a power, exact up to 22.
fn power_of_ten(exponent: u32) -> f64 {
    let mut power = 1.0;
    for _ in 0..exponent.min(400) {
        power *= 10.0;
    }
    power
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let name = "a variable";
        let value = json!({
            "number": 18_446_744_073_709_551_615u64,
            "negative": -9_223_372_036_854_775_808i64,
            "real": 2.75,
            "text": "a \"b\" \\ \n\u{1} ü 𝄞",
            "list": [1, [], {}, null, [true, false],],
            name: Some("x"),
            ("in parentheses"): None::<u32>,
        });
        assert_eq!(Json::parse(&value.to_string()), Ok(value.clone()));
        assert_eq!(value["list"][1], json!([]));
        assert_eq!(value["list"][9]["x"], Json::Null);
        assert_eq!(value["a variable"], "x");
        assert_eq!(json!([1].map(|n| n + 1)), json!([2]));
    }

    #[test]
    fn reals_are_written_with_the_digits_that_count() {
        let written = |number: f64| Json::Real(number).to_string();
        assert_eq!(written(0.0), "0.0");
        assert_eq!(written(0.1 + 0.2), "0.3");
        assert_eq!(written(-1.5), "-1.5");
        assert_eq!(written(1234.123456789), "1234.123456789");
        assert_eq!(written(0.999_999_999_9), "1.0");
        assert_eq!(written(20_999_999.976_9), "20999999.9769");
        assert_eq!(written(1e12), "1000000000000.0");
        assert_eq!(written(f64::NAN), "null");
        assert_eq!(written(f64::INFINITY), "null");
        assert_eq!(
            Json::parse(&written(f64::MAX))
                .unwrap()
                .as_f64()
                .map(|n| n / f64::MAX > 0.999_999),
            Some(true)
        );
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(100_000);
        let texts = [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\n\"",
            "1 2",
            "[1 2]",
            "'a'",
            &deep,
        ];
        for text in texts {
            let error = Json::parse(text);
            assert!(error.is_err(), "{text:.20}: {error:?}");
        }
    }

    /// Any JSON text with numbers that both read alike.
    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1_000_000..1_000_000i32).prop_map(|n| (f64::from(n) / 512.0).into()),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_and_writes_as_serde_json_does(value in values()) {
            let theirs = value.to_string();
            let ours = Json::parse(&theirs).unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ours.to_string()).unwrap(), value.clone());
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(Json::parse(&pretty).unwrap(), ours);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"\\\\u0-9eE.+-dtrflsn ]{0,40}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let ours = Json::parse(&text).is_ok();
            // A number too large for a double is none to serde_json.
            prop_assert!(ours || !theirs, "{}", text);
        }
    }
}
