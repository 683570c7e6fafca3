//! JSON texts, read.

use super::{Json, Object};

/// Objects and arrays inside one another that are read; more is an error.
pub(super) const MAX_DEPTH: u32 = 64;

/// Reads a text from front to back.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
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

    pub(super) fn space(&mut self) {
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

    pub(super) fn value(&mut self, depth: u32) -> Option<Json> {
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
