//! Regular expressions over what people write scripts with: ASCII, in one line.
//!
//! The grammar is that of the crate `regex-lite` (and, but for Unicode classes, of `regex`). All that is asked is whether a text
//! matches somewhere, so neither groups nor the greed of a repetition are kept; that is what makes this a tenth of the code of
//! an engine for everything. A pattern becomes a list of steps, and all ways through it are walked at once, a character at a
//! time: the time is bounded by the text's length times the pattern's, whatever they are.

mod parse;

/// Most steps of a pattern.
const MAX_STEPS: usize = 4_096;

/// Characters of ASCII, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Set([u32; 4]);

impl Set {
    /// From one character to another, both included; beyond ASCII there is nothing to match.
    fn add(&mut self, from: char, to: char) {
        for code in u32::from(from)..=u32::from(to).min(127) {
            if let Some(word) = self.0.get_mut(code as usize / 32) {
                *word |= 1 << (code % 32);
            }
        }
    }

    fn has(&self, byte: u8) -> bool {
        let word = self.0.get(usize::from(byte / 32));
        word.is_some_and(|word| word >> (byte % 32) & 1 == 1)
    }

    fn join(&mut self, other: &Set) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Letters of both cases where there is one.
    fn fold(&mut self) {
        let [_, _, upper, lower] = &mut self.0;
        // `A` and `a` are the second of their words.
        let letters = (*upper | *lower) & 0x07ff_fffe;
        *upper |= letters;
        *lower |= letters;
    }

    fn invert(&mut self) {
        self.0.iter_mut().for_each(|word| *word = !*word);
    }
}

/// A step. Distances are from the step itself.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// One of these characters, then the next step.
    One(Set),
    /// On with the next step, and with that at this distance.
    Both(i32),
    /// On with the step at this distance.
    Go(i32),
    /// On with the next step at the beginning of the text.
    Start,
    /// The same at its end.
    End,
    /// The same between characters of which the one before and the one after are letters of words or not: bit 0 for
    /// neither, 1 for the one after, 2 for the one before, 3 for both.
    Words(u8),
}

/// A pattern.
#[derive(Debug)]
pub struct Pattern {
    steps: Vec<Step>,
}

impl Pattern {
    /// None for text that is no pattern, or one of more than 4,096 steps.
    pub fn new(text: &str) -> Option<Self> {
        let steps = parse::parse(text)?;
        Some(Pattern { steps })
    }

    /// Whether some part of the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        let anchored = self.steps.first() == Some(&Step::Start);
        let mut walk = Walk {
            steps: &self.steps,
            seen: vec![0; self.steps.len()],
            ahead: Vec::new(),
            here: Vec::new(),
        };
        // Where the last character led.
        let mut reached: Vec<usize> = Vec::new();
        let mut before = None;
        let mut rest = text.as_bytes();
        for turn in 1.. {
            let after = rest.first().copied();
            walk.here.clear();
            let begins = (turn == 1 || !anchored).then_some(0);
            for step in reached.drain(..).chain(begins) {
                if walk.go(step, turn, before, after) {
                    return true;
                }
            }
            let Some(character) = after.filter(|_| !anchored || !walk.here.is_empty()) else {
                break;
            };
            for step in &walk.here {
                if let Some(Step::One(set)) = self.steps.get(*step)
                    && set.has(character)
                {
                    reached.push(step + 1);
                }
            }
            before = after;
            rest = rest.get(1..).unwrap_or_default();
        }
        false
    }
}

/// The ways that are open.
struct Walk<'a> {
    steps: &'a [Step],
    /// The turn in which a step was seen last.
    seen: Vec<u32>,
    ahead: Vec<usize>,
    /// Steps that wait for a character.
    here: Vec<usize>,
}

impl Walk<'_> {
    /// Goes on from a step as far as it takes no character. True when the pattern ends.
    fn go(&mut self, step: usize, turn: u32, before: Option<u8>, after: Option<u8>) -> bool {
        self.ahead.push(step);
        while let Some(step) = self.ahead.pop() {
            let Some(what) = self.steps.get(step) else {
                return true;
            };
            if let Some(seen) = self.seen.get_mut(step)
                && std::mem::replace(seen, turn) == turn
            {
                continue;
            }
            let next = match what {
                Step::One(_) => {
                    self.here.push(step);
                    false
                }
                Step::Both(distance) => {
                    self.ahead
                        .push(step.wrapping_add_signed(*distance as isize));
                    true
                }
                Step::Go(distance) => {
                    self.ahead
                        .push(step.wrapping_add_signed(*distance as isize));
                    false
                }
                Step::Start => before.is_none(),
                Step::End => after.is_none(),
                Step::Words(places) => {
                    let place = 2 * u8::from(is_word(before)) + u8::from(is_word(after));
                    places >> place & 1 == 1
                }
            };
            if next {
                self.ahead.push(step + 1);
            }
        }
        false
    }
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
