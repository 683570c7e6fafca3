//! The outputs that a block's inputs spend: what the plugin with the role `coins` gives to the others.
//!
//! They are kept beside the block, like Core's undo files: after the plugin has answered, they are written to the block
//! log's second set of segments, from where lanes that fall behind read them.

use super::reader::{DecodeError, Reader};
use thiserror::Error;

/// One entry an input, the coinbase's included (value 0, no script, height 0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// sat.
    pub values: Vec<u64>,
    pub script_ends: Vec<u32>,
    pub scripts: Vec<u8>,
    /// Height of the block that made the output.
    pub heights: Vec<u32>,
    /// 1 where a coinbase made it, else 0.
    pub coinbases: Vec<u8>,
}

/// Why kept or given spent columns cannot be used.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum SpentDecodeError {
    #[error("spent columns: {0}")]
    Decode(#[from] DecodeError),
    #[error("spent columns: {found} entries for {wanted} inputs")]
    Entries { found: usize, wanted: usize },
    #[error("spent columns: the script ends do not rise to the length of the scripts")]
    Ends,
}

impl Spent {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Checks that there is one whole entry for each of `inputs` inputs.
    ///
    /// # Errors
    ///
    /// Says which column does not fit.
    pub fn check(&self, inputs: usize) -> Result<(), SpentDecodeError> {
        for found in [
            self.values.len(),
            self.script_ends.len(),
            self.heights.len(),
            self.coinbases.len(),
        ] {
            if found != inputs {
                return Err(SpentDecodeError::Entries {
                    found,
                    wanted: inputs,
                });
            }
        }
        let rising = self.script_ends.is_sorted();
        let last = self.script_ends.last().map_or(0, |&end| end as usize);
        if rising && last == self.scripts.len() {
            Ok(())
        } else {
            Err(SpentDecodeError::Ends)
        }
    }

    /// Adds the entries of another.
    pub fn append(&mut self, other: &Self) {
        let base = self.scripts.len() as u32;
        self.values.extend_from_slice(&other.values);
        self.script_ends
            .extend(other.script_ends.iter().map(|end| base + end));
        self.scripts.extend_from_slice(&other.scripts);
        self.heights.extend_from_slice(&other.heights);
        self.coinbases.extend_from_slice(&other.coinbases);
    }

    /// Takes the first entries away; none when there are fewer.
    pub fn take_front(&mut self, count: usize) -> Option<Self> {
        if count > self.len() {
            return None;
        }
        let scripts = count
            .checked_sub(1)
            .and_then(|last| self.script_ends.get(last))
            .map_or(0, |&end| end as usize);
        let front = Self {
            values: self.values.drain(..count).collect(),
            script_ends: self.script_ends.drain(..count).collect(),
            scripts: self.scripts.drain(..scripts).collect(),
            heights: self.heights.drain(..count).collect(),
            coinbases: self.coinbases.drain(..count).collect(),
        };
        self.script_ends
            .iter_mut()
            .for_each(|end| *end -= scripts as u32);
        Some(front)
    }

    /// Sum of the values in sat.
    pub fn total(&self) -> u64 {
        self.values
            .iter()
            .fold(0, |sum, &value| sum.saturating_add(value))
    }

    /// The bytes kept on disk: the number of entries as u32 little-endian, then the columns one behind the other, each
    /// number little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.len() * 17 + self.scripts.len());
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend(self.values.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(self.script_ends.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(self.heights.iter().flat_map(|n| n.to_le_bytes()));
        out.extend_from_slice(&self.coinbases);
        out.extend_from_slice(&self.scripts);
        out
    }

    /// Reads what [`Spent::encode`] wrote.
    ///
    /// # Errors
    ///
    /// When the bytes are not such columns.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpentDecodeError> {
        let mut reader = Reader::new(bytes);
        let len = reader.u32()? as usize;
        let values = reader.take(len * 8)?.as_chunks().0;
        let script_ends = reader.take(len * 4)?.as_chunks().0;
        let heights = reader.take(len * 4)?.as_chunks().0;
        let coinbases = reader.take(len)?.to_vec();
        let scripts = bytes.get(reader.at()..).unwrap_or_default().to_vec();
        let spent = Self {
            values: values.iter().map(|&n| u64::from_le_bytes(n)).collect(),
            script_ends: script_ends.iter().map(|&n| u32::from_le_bytes(n)).collect(),
            heights: heights.iter().map(|&n| u32::from_le_bytes(n)).collect(),
            coinbases,
            scripts,
        };
        spent.check(len)?;
        Ok(spent)
    }
}
