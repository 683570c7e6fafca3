//! Shorter names of functions in a plugin's file.
//!
//! The compiler leaves them as the linker needs them, with the hash of each crate: a fifth of a plugin. Of them only what a
//! person reads in a backtrace is kept.

/// Characters of a name that are kept.
const MAX_NAME: usize = 100;
/// The custom section of names, and the part of it that has those of functions.
const SECTION: &str = "name";
const FUNCTIONS: u8 = 1;

/// The same WebAssembly with shorter names; as it is where it is not understood.
pub fn shorten(wasm: &[u8]) -> Vec<u8> {
    shortened(wasm).unwrap_or_else(|| wasm.to_vec())
}

fn shortened(wasm: &[u8]) -> Option<Vec<u8>> {
    let (head, mut rest) = wasm.split_at_checked(8)?;
    let mut out = head.to_vec();
    while !rest.is_empty() {
        let whole = rest;
        let (&id, after) = rest.split_first()?;
        rest = after;
        let length = number(&mut rest)?;
        let (content, behind) = rest.split_at_checked(length)?;
        rest = behind;
        let names = (id == 0).then(|| names_of(content)).flatten();
        match names {
            Some(names) => {
                out.push(0);
                put(&mut out, names.len());
                out.extend_from_slice(&names);
            }
            None => out.extend_from_slice(whole.get(..whole.len() - rest.len())?),
        }
    }
    Some(out)
}

/// The content of a custom section with shorter names, if it is the one with names.
fn names_of(mut content: &[u8]) -> Option<Vec<u8>> {
    if text(&mut content)? != SECTION {
        return None;
    }
    let mut out = Vec::new();
    put_text(&mut out, SECTION);
    while let Some((&part, after)) = content.split_first() {
        content = after;
        let length = number(&mut content)?;
        let (mut inside, behind) = content.split_at_checked(length)?;
        content = behind;
        if part != FUNCTIONS {
            continue;
        }
        let count = number(&mut inside)?;
        let mut functions = Vec::new();
        put(&mut functions, count);
        for _ in 0..count {
            put(&mut functions, number(&mut inside)?);
            put_text(&mut functions, &readable(text(&mut inside)?));
        }
        out.push(FUNCTIONS);
        put(&mut out, functions.len());
        out.extend_from_slice(&functions);
    }
    Some(out)
}

/// A function's name as people write it: without the hash, and types without the modules that they are in.
fn readable(name: &str) -> String {
    let mut name = without_modules(&format!("{:#}", rustc_demangle::demangle(name)));
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
        name.truncate(end);
    }
    name
}

/// `core::fmt::Formatter::pad` as `Formatter::pad`. The path of a function that belongs to no type stays.
fn without_modules(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    // Where the path begins that is being read.
    let mut path = 0;
    for (at, c) in name.char_indices() {
        let before = out.get(path..).unwrap_or_default();
        if c.is_ascii_uppercase() && before.ends_with("::") {
            let modules =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
            if before.chars().all(modules) && before.starts_with(|c: char| c != ':') {
                out.truncate(path);
            }
        }
        out.push(c);
        let part = c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if !part || name.get(at..).is_some_and(|rest| rest.starts_with("::{")) {
            path = out.len();
        }
    }
    out
}

/// An unsigned LEB128 number of 32 bits.
fn number(from: &mut &[u8]) -> Option<usize> {
    let mut number = 0u32;
    for shift in (0..32).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return usize::try_from(number).ok();
        }
    }
    None
}

fn put(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = number(from)?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    std::str::from_utf8(text).ok()
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    /// A module with a section that is no name, and the names of two functions.
    fn module(names: [&str; 2]) -> Vec<u8> {
        let mut functions = vec![2, 0];
        put_text(&mut functions, names[0]);
        functions.push(200);
        functions.push(1);
        put_text(&mut functions, names[1]);
        let mut section = Vec::new();
        put_text(&mut section, SECTION);
        section.push(FUNCTIONS);
        put(&mut section, functions.len());
        section.extend_from_slice(&functions);
        let mut wasm = b"\0asm\x01\0\0\0\x01\x02ab".to_vec();
        wasm.push(0);
        put(&mut wasm, section.len());
        wasm.extend_from_slice(&section);
        wasm
    }

    #[test]
    fn types_are_named_without_their_modules() {
        for (long, short) in [
            ("core::fmt::Formatter::pad", "Formatter::pad"),
            (
                "<alloc::vec::Vec<T,A> as core::ops::drop::Drop>::drop",
                "<Vec<T,A> as Drop>::drop",
            ),
            (
                "core::slice::<impl [T]>::partition_point",
                "core::slice::<impl [T]>::partition_point",
            ),
            (
                "core::ptr::drop_in_place<sdk::types::Columns>",
                "core::ptr::drop_in_place<Columns>",
            ),
            ("sdk::hex::decode", "sdk::hex::decode"),
            (
                "blockmill:plugin/processor@0.1.1#describe",
                "blockmill:plugin/processor@0.1.1#describe",
            ),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(without_modules(long), short);
        }
    }

    #[test]
    fn names_are_those_that_people_write_and_all_else_is_as_it_was() {
        let long = "x".repeat(300);
        let before = module(["_ZN5watch6follow4look17h0123456789abcdefE", &long]);
        let after = module(["watch::follow::look", &long[..MAX_NAME]]);
        assert_eq!(shorten(&before), after);
        assert_eq!(shorten(&after), after);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let whole = module(["a", "b"]);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let shorter = shorten(cut);
            assert!(shorter == cut, "{length}");
        }
    }
}
