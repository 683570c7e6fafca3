//! Pieces of bytes one behind the other: how scripts, keys and values of different lengths cross the boundary.

use crate::columns::piece;
use crate::wire::Pieces;

impl Pieces {
    /// No pieces.
    pub fn new() -> Self {
        Pieces {
            ends: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds a piece.
    #[inline]
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Adds a piece that `write` appends to the bytes it is given (and to which it may do nothing but append).
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Removes the pieces and keeps the memory.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }

    /// How many pieces there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Piece `index`, empty where there is none.
    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        piece(&self.bytes, &self.ends, index)
    }

    /// The pieces in order.
    #[inline]
    pub fn iter(&self) -> PiecesIter<'_> {
        PiecesIter {
            ends: self.ends.iter(),
            bytes: &self.bytes,
            start: 0,
        }
    }
}

impl Default for Pieces {
    fn default() -> Self {
        Pieces::new()
    }
}

impl<'a> IntoIterator for &'a Pieces {
    type Item = &'a [u8];
    type IntoIter = PiecesIter<'a>;
    fn into_iter(self) -> PiecesIter<'a> {
        self.iter()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Pieces {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut pieces = Pieces::new();
        for item in items {
            pieces.push(item.as_ref());
        }
        pieces
    }
}

/// The pieces in order, as slices of the bytes they lie in.
#[derive(Clone, Debug)]
pub struct PiecesIter<'a> {
    pub(crate) ends: std::slice::Iter<'a, u32>,
    pub(crate) bytes: &'a [u8],
    pub(crate) start: usize,
}

impl<'a> Iterator for PiecesIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = *self.ends.next()? as usize;
        let piece = self.bytes.get(self.start..end).unwrap_or_default();
        self.start = end;
        Some(piece)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for PiecesIter<'_> {}
