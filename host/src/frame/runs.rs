//! A block that is too long to be held, in runs of whole transactions.

use bitcoin::block::Header;
use bitcoin::{BlockHash, consensus};
use bytes::{Bytes, BytesMut};

use super::{DecodeError, Frame, HEADER_LEN};

/// Some transactions of a block.
#[derive(Debug)]
pub struct Run {
    /// The block's header and hash, and these transactions; `raw` and `size` are theirs alone.
    pub frame: Frame,
    /// Transactions of the block before them.
    pub first: u32,
    /// Transactions of the whole block.
    pub of: u32,
    /// They are the last ones, and nothing is left over.
    pub last: bool,
}

/// Cuts the bytes of a block into runs, whatever pieces they arrive in. Where it cuts depends on the block alone: a run ends with
/// the transaction that brings it to so many bytes.
#[derive(Debug)]
pub struct Runs {
    /// Bytes of a run.
    target: usize,
    /// Bytes of the longest transaction that is held.
    longest: usize,
    /// Bytes of the block that have not come yet.
    to_come: u64,
    header: Option<(Header, BlockHash)>,
    buffer: BytesMut,
    /// Bytes and transactions at the start of `buffer` that are whole.
    whole: usize,
    whole_count: usize,
    /// Transactions of the block, and how many are in the runs that were given.
    count: u64,
    given: u64,
    /// Looking again at what is not whole makes no sense with fewer bytes.
    look_at: usize,
}

impl Runs {
    /// Runs of about `target` bytes of a block of `length`, whose longest transaction has `longest` at most.
    pub fn new(length: u64, target: usize, longest: usize) -> Self {
        Self {
            target,
            longest,
            to_come: length,
            header: None,
            buffer: BytesMut::new(),
            whole: 0,
            whole_count: 0,
            count: 0,
            given: 0,
            look_at: 0,
        }
    }

    /// Takes the next bytes. Then call [`next`](Self::next) until it has nothing.
    ///
    /// # Errors
    ///
    /// When these are more bytes than the block was said to have.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.to_come = self
            .to_come
            .checked_sub(bytes.len() as u64)
            .ok_or(DecodeError::Trailing(bytes.len()))?;
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next run, if its bytes are here.
    ///
    /// # Errors
    ///
    /// When the bytes are no block.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Run>, DecodeError> {
        let Some((header, hash)) = self.read_header()? else {
            return Ok(None);
        };
        while self.given + (self.whole_count as u64) < self.count && self.whole < self.target {
            let rest = self.buffer.get(self.whole..).unwrap_or_default();
            if rest.len() < self.look_at {
                return self.starved();
            }
            let room = rest.len() as u64 + self.to_come;
            match transaction_length(rest, room)? {
                Some(length) => {
                    if length > self.longest {
                        return Err(DecodeError::TransactionTooLong(length));
                    }
                    self.whole += length;
                    self.whole_count += 1;
                    self.look_at = 0;
                }
                None => {
                    if rest.len() > self.longest {
                        return Err(DecodeError::TransactionTooLong(rest.len()));
                    }
                    // Looked at again with a quarter more, so that a long transaction is not gone over for every piece.
                    self.look_at = match self.to_come {
                        0 => return Err(DecodeError::Truncated(rest.len())),
                        to_come => {
                            let more = (rest.len() / 4).max(1) as u64;
                            rest.len() + usize::try_from(more.min(to_come)).unwrap_or(1)
                        }
                    };
                    return Ok(None);
                }
            }
        }
        if self.given == self.count && self.count > 0 {
            return match self.buffer.len() as u64 + self.to_come {
                0 => Ok(None),
                left => Err(DecodeError::Trailing(left as usize)),
            };
        }
        let raw = self.buffer.split_to(self.whole).freeze();
        let count = std::mem::take(&mut self.whole_count);
        self.whole = 0;
        let first = self.given;
        self.given += count as u64;
        let last = self.given == self.count;
        if last && self.buffer.len() as u64 + self.to_come > 0 {
            return Err(DecodeError::Trailing(self.buffer.len()));
        }
        Ok(Some(Run {
            frame: Frame::of_run(header, hash, count, raw)?,
            first: first as u32,
            of: self.count as u32,
            last,
        }))
    }

    /// Whether the whole block was given.
    pub fn is_finished(&self) -> bool {
        self.header.is_some() && self.given == self.count && self.to_come == 0
    }

    fn starved(&self) -> Result<Option<Run>, DecodeError> {
        match self.to_come {
            0 => Err(DecodeError::Truncated(self.buffer.len())),
            _ => Ok(None),
        }
    }

    fn read_header(&mut self) -> Result<Option<(Header, BlockHash)>, DecodeError> {
        if let Some(known) = self.header {
            return Ok(Some(known));
        }
        let Some(bytes) = self.buffer.get(..HEADER_LEN) else {
            return self.starved().map(|_| None);
        };
        let header: Header =
            consensus::deserialize(bytes).map_err(|_| DecodeError::Truncated(0))?;
        let rest = self.buffer.get(HEADER_LEN..).unwrap_or_default();
        let Some((count, used)) = compact_size(rest)? else {
            return self.starved().map(|_| None);
        };
        let room = rest.len() as u64 + self.to_come;
        if count == 0 || count > room / 60 || u32::try_from(count).is_err() {
            return Err(DecodeError::Count {
                count,
                at: HEADER_LEN,
            });
        }
        let _: Bytes = self.buffer.split_to(HEADER_LEN + used).freeze();
        self.count = count;
        let known = (header, header.block_hash());
        self.header = Some(known);
        Ok(Some(known))
    }
}

/// A compact size at the start of some bytes, and its length; none when it is not all there.
fn compact_size(bytes: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let length = match first {
        0xfd => 2,
        0xfe => 4,
        0xff => 8,
        small => return Ok(Some((u64::from(*small), 1))),
    };
    let Some(number) = rest.get(..length) else {
        return Ok(None);
    };
    let number = number
        .iter()
        .rev()
        .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let least = match length {
        2 => 0xfd,
        4 => 0x1_0000,
        _ => 0x1_0000_0000,
    };
    match number < least {
        true => Err(DecodeError::NonMinimal(0)),
        false => Ok(Some((number, 1 + length))),
    }
}

/// How far a walk over a transaction has come.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes that there are, or will be.
    room: u64,
}

impl Walk<'_> {
    fn skip(&mut self, length: u64) -> Result<Option<()>, DecodeError> {
        if length > self.room.saturating_sub(self.at as u64) {
            return Err(DecodeError::Count {
                count: length,
                at: self.at,
            });
        }
        let end = self.at as u64 + length;
        Ok((end <= self.bytes.len() as u64).then(|| self.at = end as usize))
    }

    fn count(&mut self, smallest: u64) -> Result<Option<u64>, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((count, used)) = compact_size(rest)? else {
            return Ok(None);
        };
        if count > self.room / smallest {
            return Err(DecodeError::Count { count, at: self.at });
        }
        self.at += used;
        Ok(Some(count))
    }

    fn var_bytes(&mut self) -> Result<Option<()>, DecodeError> {
        match self.count(1)? {
            Some(length) => self.skip(length),
            None => Ok(None),
        }
    }
}

/// The length of the transaction at the start of `bytes`; none when it is not all there. `room` is what there are or will be.
/// What the transaction says is read, not checked: decoding it does that.
fn transaction_length(bytes: &[u8], room: u64) -> Result<Option<usize>, DecodeError> {
    macro_rules! here {
        ($walk:expr) => {
            match $walk? {
                Some(value) => value,
                None => return Ok(None),
            }
        };
    }
    let mut walk = Walk { bytes, at: 0, room };
    here!(walk.skip(4));
    let segwit = match bytes.get(4) {
        Some(marker) => *marker == 0,
        None => return Ok(None),
    };
    if segwit {
        here!(walk.skip(2));
    }
    let inputs = here!(walk.count(41));
    for _ in 0..inputs {
        here!(walk.skip(36));
        here!(walk.var_bytes());
        here!(walk.skip(4));
    }
    for _ in 0..here!(walk.count(9)) {
        here!(walk.skip(8));
        here!(walk.var_bytes());
    }
    if segwit {
        for _ in 0..inputs {
            for _ in 0..here!(walk.count(1)) {
                here!(walk.var_bytes());
            }
        }
    }
    here!(walk.skip(4));
    Ok(Some(walk.at))
}

#[cfg(test)]
mod tests;
