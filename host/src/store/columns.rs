//! Columns of byte strings: how keys and values cross the boundary without one allocation each.

use super::error::ArgumentError;

/// Several byte strings in one buffer, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum Keys<'a> {
    /// Entries of `width` bytes, one after the other.
    Fixed {
        /// Bytes of an entry, at least 1.
        width: usize,
        /// The entries.
        bytes: &'a [u8],
    },
    /// Entries of any length: entry `i` ends before `ends[i]` and begins where the one before ends.
    Ends {
        /// Where each entry ends in `bytes`.
        ends: &'a [u32],
        /// The entries.
        bytes: &'a [u8],
    },
}

/// The values that go with [`Keys`]: the same shape.
pub type Values<'a> = Keys<'a>;

impl<'a> Keys<'a> {
    /// Entries of one width.
    pub fn fixed(width: usize, bytes: &'a [u8]) -> Self {
        Self::Fixed { width, bytes }
    }

    /// Entries of any length.
    pub fn ends(ends: &'a [u32], bytes: &'a [u8]) -> Self {
        Self::Ends { ends, bytes }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Fixed { width, bytes } => bytes.len().checked_div(*width).unwrap_or(0),
            Self::Ends { ends, .. } => ends.len(),
        }
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that the entries cover the buffer exactly. After this, [`get`](Self::get) finds every entry.
    pub fn check(&self) -> Result<(), ArgumentError> {
        match *self {
            Self::Fixed { width, bytes } => match bytes.len().checked_rem(width) {
                Some(0) => Ok(()),
                None if bytes.is_empty() => Ok(()),
                _ => Err(ArgumentError::Width {
                    len: bytes.len(),
                    width,
                }),
            },
            Self::Ends { ends, bytes } => {
                let ordered = ends.is_sorted();
                let whole = ends.last().map_or(0, |end| *end as usize) == bytes.len();
                if ordered && whole {
                    Ok(())
                } else {
                    Err(ArgumentError::Ends { len: bytes.len() })
                }
            }
        }
    }

    /// Entry `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        match *self {
            Self::Fixed { width, bytes } => bytes.get(index * width..(index + 1) * width),
            Self::Ends { ends, bytes } => {
                let start = match index.checked_sub(1) {
                    Some(before) => *ends.get(before)? as usize,
                    None => 0,
                };
                bytes.get(start..*ends.get(index)? as usize)
            }
        }
    }

    /// All entries in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }
}

/// Answers to a columnar read: one entry a key, empty where nothing was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ValueColumn {
    /// The values found, one after the other.
    pub values: Vec<u8>,
    /// Where each entry ends in `values`.
    pub ends: Vec<u32>,
    /// 1 where the key was found, 0 where it was not.
    pub found: Vec<u8>,
}

impl ValueColumn {
    /// Empties the column and keeps its memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
        self.found.clear();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Entry `index`: `None` past the end and where nothing was found.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if *self.found.get(index)? == 0 {
            return None;
        }
        Keys::ends(&self.ends, &self.values).get(index)
    }

    /// Appends an answer.
    pub fn push(&mut self, value: Option<&[u8]>) -> Result<(), ArgumentError> {
        self.values.extend_from_slice(value.unwrap_or_default());
        let end = u32::try_from(self.values.len()).map_err(|_| ArgumentError::AnswerTooLarge)?;
        self.ends.push(end);
        self.found.push(u8::from(value.is_some()));
        Ok(())
    }
}

/// One page of a scan: keys in order, with their values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The keys, one after the other.
    pub keys: Vec<u8>,
    /// Where each key ends in `keys`.
    pub key_ends: Vec<u32>,
    /// The values, one after the other.
    pub values: Vec<u8>,
    /// Where each value ends in `values`.
    pub value_ends: Vec<u32>,
    /// Whether a limit ended the page: go on after its last key.
    pub more: bool,
}

impl ScanPage {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Keys::ends(&self.key_ends, &self.keys)
            .iter()
            .zip(Keys::ends(&self.value_ends, &self.values).iter())
    }

    /// The last key, from which the next page goes on.
    pub fn last_key(&self) -> Option<&[u8]> {
        Keys::ends(&self.key_ends, &self.keys).get(self.len().checked_sub(1)?)
    }

    /// Appends an entry unless that passes a limit; then marks the page and says `false`. The first entry always fits.
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        value: &[u8],
        limit_entries: usize,
        limit_bytes: usize,
    ) -> Result<bool, ArgumentError> {
        let bytes = self.keys.len() + self.values.len() + key.len() + value.len();
        if self.len() >= limit_entries || (bytes > limit_bytes && !self.is_empty()) {
            self.more = true;
            return Ok(false);
        }
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        let end = |len: usize| u32::try_from(len).map_err(|_| ArgumentError::AnswerTooLarge);
        self.key_ends.push(end(self.keys.len())?);
        self.value_ends.push(end(self.values.len())?);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn columns_that_do_not_cover_their_bytes_are_refused() {
        assert_eq!(
            Keys::fixed(3, b"abcd").check(),
            Err(ArgumentError::Width { len: 4, width: 3 })
        );
        assert_eq!(
            Keys::fixed(0, b"a").check(),
            Err(ArgumentError::Width { len: 1, width: 0 })
        );
        assert_eq!(Keys::fixed(0, b"").check(), Ok(()));
        assert_eq!(
            Keys::ends(&[2, 1, 4], b"abcd").check(),
            Err(ArgumentError::Ends { len: 4 })
        );
        assert_eq!(
            Keys::ends(&[2, 5], b"abcd").check(),
            Err(ArgumentError::Ends { len: 4 })
        );
        assert_eq!(
            Keys::ends(&[2], b"abcd").check(),
            Err(ArgumentError::Ends { len: 4 })
        );
        assert_eq!(
            Keys::ends(&[], b"a").check(),
            Err(ArgumentError::Ends { len: 1 })
        );
        assert_eq!(Keys::ends(&[1, 1, 4], b"abcd").check(), Ok(()));
        let entries: Vec<_> = Keys::ends(&[1, 1, 4], b"abcd").iter().collect();
        assert_eq!(entries, [&b"a"[..], b"", b"bcd"]);
    }
}
