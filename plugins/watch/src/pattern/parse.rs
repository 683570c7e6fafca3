//! From the text of a pattern to its steps.

use std::iter::repeat_n;
use std::str::Chars;

use super::{MAX_STEPS, Set, Step};

/// Groups in each other.
const MAX_DEPTH: u32 = 50;

/// The steps of a pattern; none for what is no pattern, or too large a one.
pub(super) fn parse(text: &str) -> Option<Vec<Step>> {
    let mut parser = Parser {
        rest: text.chars(),
        depth: 0,
        flags: Flags::default(),
    };
    let steps = parser.alternatives()?;
    parser.rest.next().is_none().then_some(steps)
}

/// What `(?i)` and the like have set. Of the others (`m`, `s`, `R`, `U`, `u`) nothing depends in a text of one line.
#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    verbose: bool,
}

struct Parser<'a> {
    rest: Chars<'a>,
    depth: u32,
    flags: Flags,
}

/// What stands for a character, or for more.
enum Item {
    Character(char),
    Set(Set),
    Step(Step),
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest.as_str().strip_prefix(text);
        if let Some(rest) = found {
            self.rest = rest.chars();
        }
        found.is_some()
    }

    /// Passes over what a verbose pattern has for its reader.
    fn space(&mut self) {
        while self.flags.verbose {
            match self.peek() {
                Some('#') => while !matches!(self.rest.next(), None | Some('\n')) {},
                Some(' ' | '\t'..='\r') => {
                    self.rest.next();
                }
                _ => return,
            }
        }
    }

    /// What stands in a group, or in the whole pattern.
    fn alternatives(&mut self) -> Option<Vec<Step>> {
        let mut done: Vec<Vec<Step>> = Vec::new();
        let mut items: Vec<Vec<Step>> = Vec::new();
        loop {
            self.space();
            let Some(next) = self.peek() else { break };
            match next {
                ')' if self.depth > 0 => break,
                ')' => return None,
                '|' => {
                    self.rest.next();
                    done.push(concat(&std::mem::take(&mut items))?);
                }
                '(' => items.extend(self.group()?),
                '?' | '*' | '+' | '{' => {
                    let item = items.pop()?;
                    let (least, most) = self.times()?;
                    items.push(repeat(&item, least, most)?);
                }
                _ => {
                    let step = self.step()?;
                    items.push(vec![step]);
                }
            }
        }
        let mut steps = concat(&items)?;
        while let Some(other) = done.pop() {
            let both = [Step::Both(other.len() as i32 + 2)];
            let go = [Step::Go(steps.len() as i32 + 1)];
            steps = concat(&[&both[..], &other, &go[..], &steps])?;
        }
        Some(steps)
    }

    /// A group; none of its steps for flags.
    fn group(&mut self) -> Option<Option<Vec<Step>>> {
        let outside = self.flags;
        self.rest.next();
        self.space();
        if self.eat("?P<") || self.eat("?<") {
            let name: &str = self.rest.as_str().split_once('>')?.0;
            let inside = |c: char| {
                c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']') || !c.is_ascii()
            };
            let first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
            if !name.starts_with(first) || !name.chars().all(inside) {
                return None;
            }
            while self.rest.next()? != '>' {}
        } else if self.eat("?") {
            self.flags = self.new_flags()?;
            if self.eat(")") {
                return Some(None);
            }
            self.rest.next();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let steps = self.alternatives()?;
        self.depth -= 1;
        self.flags = outside;
        self.eat(")").then_some(Some(steps))
    }

    /// The flags up to a colon or the closing bracket, at which it stops.
    fn new_flags(&mut self) -> Option<Flags> {
        let mut flags = self.flags;
        let (text, _) = self.rest.as_str().split_once([':', ')'])?;
        let colon = self.rest.as_str().get(text.len()..)?.starts_with(':');
        let twice = |c: char| text.matches(c).count() > 1;
        if text.ends_with('-') || text.is_empty() && !colon || text.chars().any(twice) {
            return None;
        }
        let mut on = true;
        for flag in text.chars() {
            match flag {
                '-' => on = false,
                'i' => flags.fold = on,
                'x' => flags.verbose = on,
                'm' | 's' | 'U' | 'R' | 'u' => {}
                _ => return None,
            }
            self.rest.next();
        }
        Some(flags)
    }

    /// How often the item before comes.
    fn times(&mut self) -> Option<(u32, Option<u32>)> {
        let times = match self.rest.next()? {
            '?' => (0, Some(1)),
            '*' => (0, None),
            '+' => (1, None),
            _ => {
                let (text, _) = self.rest.as_str().split_once('}')?;
                let number = |text: &str| {
                    let text = text.trim_ascii();
                    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    digits.then(|| text.parse::<u32>().ok()).flatten()
                };
                let times = match text.split_once(',') {
                    None => (number(text)?, Some(number(text)?)),
                    Some((least, "")) => (number(least)?, None),
                    Some((least, most)) => (number(least)?, Some(number(most)?)),
                };
                while self.rest.next()? != '}' {}
                times
            }
        };
        // Whether as much as possible or as little makes no difference.
        self.eat("?");
        let (least, most) = times;
        most.is_none_or(|most| least <= most).then_some(times)
    }

    /// A single step.
    fn step(&mut self) -> Option<Step> {
        let mut set = Set::default();
        match self.rest.next()? {
            '^' => return Some(Step::Start),
            '$' => return Some(Step::End),
            '.' => set.invert(),
            '[' => set = self.class()?,
            '\\' => match self.escape()? {
                Item::Step(step) => return Some(step),
                Item::Set(escaped) => set = escaped,
                Item::Character(c) => self.character(c, &mut set),
            },
            c => self.character(c, &mut set),
        }
        Some(Step::One(set))
    }

    fn character(&self, c: char, set: &mut Set) {
        set.add(c, c);
        if self.flags.fold {
            set.fold();
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<Item> {
        let c = self.rest.next()?;
        let words = |places| Some(Item::Step(Step::Words(places)));
        Some(Item::Character(match c {
            'd' | 's' | 'w' | 'D' | 'S' | 'W' => {
                let mut set = named(match c.to_ascii_lowercase() {
                    'd' => "digit",
                    's' => "space",
                    _ => "word",
                })?;
                if c.is_ascii_uppercase() {
                    set.invert();
                }
                return Some(Item::Set(set));
            }
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            'a' => '\x07',
            'f' => '\x0c',
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'v' => '\x0b',
            'A' => return Some(Item::Step(Step::Start)),
            'z' => return Some(Item::Step(Step::End)),
            'b' => {
                for (name, places) in [
                    ("{start}", 0b0010),
                    ("{end}", 0b0100),
                    ("{start-half}", 0b0011),
                    ("{end-half}", 0b0101),
                ] {
                    if self.eat(name) {
                        return words(places);
                    }
                }
                return words(0b0110);
            }
            'B' => return words(0b1001),
            '<' => return words(0b0010),
            '>' => return words(0b0100),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return None,
        }))
    }

    /// A character by its number: so many hexadecimal digits, or any in curly brackets.
    fn code(&mut self, digits: usize) -> Option<char> {
        let text = self.rest.as_str();
        let (number, rest) = match text.strip_prefix('{') {
            Some(text) => text.split_once('}')?,
            None => text.split_at_checked(digits)?,
        };
        if !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = rest.chars();
        char::from_u32(u32::from_str_radix(number, 16).ok()?)
    }

    /// What stands between square brackets.
    fn class(&mut self) -> Option<Set> {
        let mut set = Set::default();
        self.space();
        let inverted = self.eat("^");
        self.space();
        let mut first = true;
        while self.eat("-") {
            first = false;
            set.add('-', '-');
            self.space();
        }
        if first && self.eat("]") {
            set.add(']', ']');
        }
        loop {
            self.space();
            let rest = self.rest.as_str();
            if ["&&", "--", "~~"].iter().any(|set| rest.starts_with(set)) {
                return None;
            }
            if self.eat("]") {
                break;
            }
            if self.eat("[:") {
                let inverted = self.eat("^");
                let (name, rest) = self.rest.as_str().split_once(':')?;
                let mut known = named(name)?;
                if inverted {
                    known.invert();
                }
                set.join(&known);
                self.rest = rest.strip_prefix(']')?.chars();
                continue;
            }
            let from = self.class_item()?;
            self.space();
            let mut ahead = self.rest.clone();
            let range = ahead.next() == Some('-') && !matches!(ahead.next(), Some(']' | '-'));
            match from {
                Item::Set(escaped) if !range => set.join(&escaped),
                Item::Character(from) if !range => set.add(from, from),
                Item::Character(from) => {
                    self.rest.next();
                    self.space();
                    let Item::Character(to) = self.class_item()? else {
                        return None;
                    };
                    if from > to {
                        return None;
                    }
                    set.add(from, to);
                }
                _ => return None,
            }
        }
        if self.flags.fold {
            set.fold();
        }
        if inverted {
            set.invert();
        }
        Some(set)
    }

    fn class_item(&mut self) -> Option<Item> {
        match self.rest.next()? {
            '[' => None,
            '\\' => self.escape(),
            c => Some(Item::Character(c)),
        }
    }
}

/// A class that has a name.
fn named(name: &str) -> Option<Set> {
    let ranges: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    };
    let mut set = Set::default();
    for (from, to) in ranges {
        set.add(*from, *to);
    }
    Some(set)
}

/// One after the other.
fn concat(parts: &[impl AsRef<[Step]>]) -> Option<Vec<Step>> {
    let steps = parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
    (steps <= MAX_STEPS).then(|| {
        let mut all = Vec::with_capacity(steps);
        for part in parts {
            all.extend_from_slice(part.as_ref());
        }
        all
    })
}

/// The same `least` times at least, and `most` times or any number at most.
fn repeat(item: &[Step], least: u32, most: Option<u32>) -> Option<Vec<Step>> {
    // What is empty is so however often it comes.
    let many = if item.is_empty() { 1 } else { MAX_STEPS as u32 };
    let (least, most) = (least.min(many + 1), most.map(|most| most.min(many + 1)));
    let times = most.unwrap_or(least.max(1)) as usize;
    if times * item.len() > MAX_STEPS {
        return None;
    }
    let length = item.len() as i32;
    let mut steps: Vec<&[Step]> = repeat_n(item, least as usize).collect();
    let ends: Vec<Step>;
    let (again, back) = ([Step::Both(length + 2)], [Step::Go(-length - 1)]);
    match most {
        None => steps.extend([&again[..], item, &back[..]]),
        Some(most) => {
            // Each of the others may be the end: on behind the last of them.
            let left = |left: u32| Step::Both(left as i32 * (length + 1));
            ends = (1..=most.saturating_sub(least)).rev().map(left).collect();
            for end in ends.chunks(1) {
                steps.extend([end, item]);
            }
        }
    }
    concat(&steps)
}
