//! Reading Bitcoin's encodings from a slice.

use thiserror::Error;

/// Why bytes are not a block, a transaction or the like. Places are offsets in bytes.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum DecodeError {
    #[error("the data end too early, at byte {0}")]
    Truncated(usize),
    #[error("{0} bytes are left over at the end")]
    Trailing(usize),
    #[error("a compact size is not in its shortest form, at byte {0}")]
    NonMinimal(usize),
    #[error("{count} items are announced at byte {at}, more than the data can hold")]
    Count { count: u64, at: usize },
    #[error("unknown transaction flag {flag:#04x} at byte {at}")]
    Flag { flag: u8, at: usize },
    #[error("a transaction is serialized with witnesses but has none, at byte {0}")]
    SuperfluousWitness(usize),
    #[error("a transaction of {0} bytes or more is longer than this host holds")]
    TransactionTooLong(usize),
    #[error("{0} bytes are more than a block may have")]
    TooLarge(usize),
}

/// A place in a slice that moves forward.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let taken = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..n))
            .ok_or(DecodeError::Truncated(self.at))?;
        self.at += n;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.take(N)?
            .try_into()
            .map_err(|_| DecodeError::Truncated(at))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next byte, without going past it.
    pub(super) fn peek(&self) -> Result<u8, DecodeError> {
        self.bytes
            .get(self.at)
            .copied()
            .ok_or(DecodeError::Truncated(self.at))
    }

    #[inline]
    pub(super) fn compact_size(&mut self) -> Result<u64, DecodeError> {
        let at = self.at;
        let [first] = self.array()?;
        let (n, least) = match first {
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => return Ok(u64::from(small)),
        };
        if n < least {
            Err(DecodeError::NonMinimal(at))
        } else {
            Ok(n)
        }
    }

    /// A count of items that have at least `smallest` bytes each: refused when the rest of the data cannot hold them.
    #[inline]
    pub(super) fn count(&mut self, smallest: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = self.compact_size()?;
        let room = (self.bytes.len() - self.at) / smallest;
        match usize::try_from(count) {
            Ok(n) if n <= room => Ok(n),
            _ => Err(DecodeError::Count { count, at }),
        }
    }

    /// Bytes that carry their length before them.
    #[inline]
    pub(super) fn var_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.count(1)?;
        self.take(n)
    }

    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
