//! Shorter names of functions in a plugin's file, and nothing there that neither a person nor the host reads.
//!
//! The compiler leaves names as the linker needs them, with the hash of each crate: a fifth of a plugin. Of them only what a
//! person reads in a backtrace is kept.

/// Characters of a name that are kept.
const MAX_NAME: usize = 80;
/// The custom section of names, and the part of it that has those of functions.
const SECTION: &str = "name";
const FUNCTIONS: u8 = 1;
/// Custom sections that say how the file was made.
const UNREAD: [&str; 2] = ["producers", "target_features"];
/// What wit-bindgen puts between the name of a world and the rest of a section's name that has only the world's imports: for
/// a library that exports nothing. The section of the whole world has them too.
const IMPORTS_ALONE: &str = "-with-all-of-its-exports-removed";

/// The same WebAssembly with shorter names and without what nobody reads; as it is where it is not understood.
pub fn shorten(wasm: &[u8]) -> Vec<u8> {
    shortened(wasm).unwrap_or_else(|| wasm.to_vec())
}

fn shortened(wasm: &[u8]) -> Option<Vec<u8>> {
    let (head, sections) = wasm.split_at_checked(8)?;
    let custom: Vec<&str> = each_section(sections)?
        .iter()
        .filter_map(|section| section.name())
        .collect();
    let mut out = head.to_vec();
    for section in each_section(sections)? {
        if section.name().is_some_and(|name| is_unread(name, &custom)) {
            continue;
        }
        match section.name().and_then(|_| names_of(section.content)) {
            Some(names) => {
                out.push(0);
                put(&mut out, names.len());
                out.extend_from_slice(&names);
            }
            None => out.extend_from_slice(section.whole),
        }
    }
    Some(out)
}

/// Whether nobody reads the custom section of this name, beside those of the names `all`.
fn is_unread(name: &str, all: &[&str]) -> bool {
    let is_of = |world: &str, other: &str| {
        let rest = other.strip_prefix(world);
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    UNREAD.contains(&name)
        || name
            .split_once(IMPORTS_ALONE)
            .is_some_and(|(world, _)| all.iter().any(|other| is_of(world, other)))
}

/// A section of a module.
struct Section<'a> {
    /// 0 for a custom one.
    id: u8,
    content: &'a [u8],
    /// With what stands before the content.
    whole: &'a [u8],
}

impl<'a> Section<'a> {
    /// The name of a custom section.
    fn name(&self) -> Option<&'a str> {
        let mut content = self.content;
        (self.id == 0).then(|| text(&mut content)).flatten()
    }
}

fn each_section(mut rest: &[u8]) -> Option<Vec<Section<'_>>> {
    let mut sections = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let (&id, after) = rest.split_first()?;
        rest = after;
        let length = number(&mut rest)?;
        let (content, behind) = rest.split_at_checked(length)?;
        rest = behind;
        sections.push(Section {
            id,
            content,
            whole: start.get(..start.len() - rest.len())?,
        });
    }
    Some(sections)
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

/// A function's name as people write it: without the hash, types without the modules that they are in, and a function of no
/// type with its module alone, and without parameters that are not known.
fn readable(name: &str) -> String {
    let name = without_modules(&format!("{:#}", rustc_demangle::demangle(name)));
    let mut name = without_parameters(end_of_path(&name));
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

/// `sdk::json::write::quoted` as `write::quoted`: the last two parts of a path. Closures are no part of their own.
fn end_of_path(name: &str) -> &str {
    // Where the parts begin.
    let mut parts = vec![0];
    let mut depth = 0u32;
    for (at, c) in name.char_indices() {
        match c {
            '<' | '[' | '(' => depth += 1,
            '>' | ']' | ')' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && name.get(..at).is_some_and(|before| before.ends_with(':')) => {
                let closure = name.get(at + 1..).is_some_and(|rest| rest.starts_with('{'));
                if !closure {
                    parts.push(at + 1);
                }
            }
            _ => {}
        }
    }
    let start = parts.iter().rev().nth(1).copied().unwrap_or(0);
    name.get(start..).unwrap_or(name)
}

/// `Vec<T,A>::retain` as `Vec::retain`: where a type is not said, its place is not either.
fn without_parameters(name: &str) -> String {
    let unknown = |inside: &str| {
        let letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        inside
            .split(',')
            .all(|parameter| (1..=2).contains(&parameter.len()) && parameter.chars().all(letter))
    };
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        match after.split_once('>') {
            // `<T>::f` would be `::f`.
            Some((inside, behind)) if unknown(inside) && !before.is_empty() => rest = behind,
            _ => {
                out.push('<');
                rest = after;
            }
        }
    }
    out + rest
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
    fn a_function_of_no_type_is_named_with_its_module() {
        for (long, short) in [
            ("sdk::json::write::quoted", "write::quoted"),
            (
                "sdk::export::start::{{closure}}",
                "export::start::{{closure}}",
            ),
            ("hex::decode", "hex::decode"),
            ("<Vec<T,A> as Drop>::drop", "<Vec<T,A> as Drop>::drop"),
            (
                "core::ptr::drop_in_place<Map<fn(a::b) -> c::d>>",
                "ptr::drop_in_place<Map<fn(a::b) -> c::d>>",
            ),
            (
                "core::slice::<impl [T]>::partition_point",
                "<impl [T]>::partition_point",
            ),
            (
                "blockmill:plugin/processor@0.1.2#describe",
                "blockmill:plugin/processor@0.1.2#describe",
            ),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(end_of_path(long), short);
        }
    }

    #[test]
    fn parameters_that_are_not_known_are_left_out() {
        for (long, short) in [
            ("Vec<T,A>::retain::{{closure}}", "Vec::retain::{{closure}}"),
            (
                "<Vec<T,A1> as Extend<T>>::extend",
                "<Vec as Extend>::extend",
            ),
            ("<T as Into<U>>::into", "<T as Into>::into"),
            ("<T>::f", "<T>::f"),
            ("RawVecInner<_>::grow", "RawVecInner::grow"),
            ("drop_in_place<Vec<Step>>", "drop_in_place<Vec<Step>>"),
            ("<Json as From<&str>>::from", "<Json as From<&str>>::from"),
            ("a < b > c <", "a < b > c <"),
        ] {
            assert_eq!(without_parameters(long), short);
        }
    }

    /// A module with custom sections of these names.
    fn with_sections(names: &[&str]) -> Vec<u8> {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        for name in names {
            let mut section = Vec::new();
            put_text(&mut section, name);
            section.extend_from_slice(b"content");
            wasm.push(0);
            put(&mut wasm, section.len());
            wasm.extend_from_slice(&section);
        }
        wasm
    }

    #[test]
    fn sections_that_nobody_reads_are_left_out() {
        let whole = "component-type:wit-bindgen:0.61.1:a:b@0.1.2:world:imports and exports";
        let imports = "component-type:wit-bindgen:0.61.1:a:b@0.1.2:world-with-all-of-its-exports-removed:encoded world";
        let before = with_sections(&["producers", imports, "mine", whole, "target_features"]);
        assert_eq!(shorten(&before), with_sections(&["mine", whole]));
        // Of another world, or alone, it is all that the host knows.
        let other = whole.replace("world", "worlds");
        for names in [&[imports][..], &[imports, &other]] {
            assert_eq!(shorten(&with_sections(names)), with_sections(names));
        }
    }

    #[test]
    fn names_are_those_that_people_write_and_all_else_is_as_it_was() {
        let long = "x".repeat(300);
        let before = module(["_ZN5watch6follow4look17h0123456789abcdefE", &long]);
        let after = module(["follow::look", &long[..MAX_NAME]]);
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
