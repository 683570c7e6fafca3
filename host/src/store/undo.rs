//! The undo record of a block: what every key that the block changed held before, and the cursor before it.
//!
//! ```text
//! record:  1 u8 (format) | cursor before: 0 u8, or 1 u8 + height u32 LE + hash 32 | changes…
//! change:  key length u16 LE | 0 u32, or value length + 1 as u32 LE | key | value
//! ```
//!
//! A key may come twice: the first mention counts, so records are applied from the last change to the first. In the
//! keyspace `NAME.undo` the key of a record is its block's height, u32 BE.

use super::Cursor;

const FORMAT: u8 = 1;

/// A record being written.
pub(super) struct UndoWriter(Vec<u8>);

impl UndoWriter {
    pub(super) fn new(before: Option<Cursor>) -> Self {
        let mut bytes = vec![FORMAT];
        match before {
            None => bytes.push(0),
            Some(cursor) => {
                bytes.push(1);
                bytes.extend_from_slice(&cursor.to_bytes());
            }
        }
        Self(bytes)
    }

    /// Notes what a key held. Keys are bounded to u16 lengths and values below u32.
    pub(super) fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.0.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.0.extend_from_slice(
            &value
                .map_or(0, |value| value.len() as u32 + 1)
                .to_le_bytes(),
        );
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value.unwrap_or_default());
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.shrink_to_fit();
        self.0
    }
}

/// A record read back.
pub(super) struct UndoRecord<'a> {
    /// The cursor before the block.
    pub(super) before: Option<Cursor>,
    /// The changes, last first.
    pub(super) changes: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// The cursor before the block, and the bytes of the changes.
pub(super) fn decode_before(bytes: &[u8]) -> Option<(Option<Cursor>, &[u8])> {
    match bytes.split_first_chunk::<2>()? {
        ([FORMAT, 0], rest) => Some((None, rest)),
        ([FORMAT, 1], rest) => {
            let (cursor, rest) = rest.split_at_checked(Cursor::LEN)?;
            Some((Some(Cursor::from_bytes(cursor)?), rest))
        }
        _ => None,
    }
}

/// Reads a record; `None` when it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<UndoRecord<'_>> {
    let (before, mut rest) = decode_before(bytes)?;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let (key_len, after) = rest.split_first_chunk::<2>()?;
        let (value_len, after) = after.split_first_chunk::<4>()?;
        let (key, after) = after.split_at_checked(u16::from_le_bytes(*key_len) as usize)?;
        let value_len = u32::from_le_bytes(*value_len) as usize;
        let (value, after) = after.split_at_checked(value_len.saturating_sub(1))?;
        changes.push((key, (value_len > 0).then_some(value)));
        rest = after;
    }
    changes.reverse();
    Some(UndoRecord { before, changes })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_record_reads_back_last_change_first_and_a_cut_one_is_refused() {
        let cursor = Cursor {
            height: 7,
            hash: [9; 32],
        };
        let mut writer = UndoWriter::new(Some(cursor));
        writer.change(b"a", Some(b""));
        writer.change(b"bc", None);
        writer.change(b"d", Some(b"value"));
        let bytes = writer.finish();
        let record = decode(&bytes).unwrap();
        assert_eq!(record.before, Some(cursor));
        assert_eq!(
            record.changes,
            [
                (&b"d"[..], Some(&b"value"[..])),
                (b"bc", None),
                (b"a", Some(b""))
            ]
        );
        assert!(decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode(&[]).is_none());
        assert!(decode(&[9, 0]).is_none());
        assert_eq!(
            decode(&UndoWriter::new(None).finish()).unwrap().before,
            None
        );
    }
}
