//! The section `reads` of a capsule: what a plugin read.
//!
//! ```text
//! reads    n u32 │ value… │ n u32 │ range… │ n u32 │ value of the volatile space… │ n u32 │ header…
//! value    key │ 0 u32 if it was not there, else length + 1 u32 │ bytes
//! range    from │ 0 u32 if it has no end, else length + 1 u32 │ bytes │ continues u8
//! header   height u32 │ 0 u8, or 1 u8 │ header 80 │ median time u32
//! key, from   length u32 │ bytes
//! ```

use crate::frame::HEADER_LEN;
use crate::plugin::recorder::{KnownHeader, KnownRange, Recording};
use anyhow::{Context, Result, bail};
use bitcoin::consensus;
use std::collections::BTreeMap;

/// Puts numbers and bytes one behind the other.
#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn u32(&mut self, number: usize) {
        // A capsule is bounded far below.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.raw(&number.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len());
        self.raw(bytes);
    }

    fn maybe(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.u32(0),
            Some(bytes) => {
                self.u32(bytes.len() + 1);
                self.raw(bytes);
            }
        }
    }

    fn values(&mut self, values: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        self.u32(values.len());
        for (key, value) in values {
            self.bytes(key);
            self.maybe(value.as_deref());
        }
    }
}

/// Reads what [`Writer`] wrote.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    pub fn u8(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn maybe(&mut self) -> Result<Option<Vec<u8>>> {
        let length = (self.u32()? as usize).checked_sub(1);
        length
            .map(|length| Ok(self.take(length)?.to_vec()))
            .transpose()
    }

    fn values(&mut self) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let mut values = BTreeMap::new();
        for _ in 0..self.u32()? {
            let key = self.bytes()?.to_vec();
            values.insert(key, self.maybe()?);
        }
        Ok(values)
    }
}

pub(super) fn encode(reads: &Recording) -> Vec<u8> {
    let mut out = Writer::default();
    out.values(&reads.values);
    out.u32(reads.ranges.len());
    for range in &reads.ranges {
        out.bytes(&range.from);
        out.maybe(range.to.as_deref());
        out.raw(&[u8::from(range.continues)]);
    }
    out.values(&reads.volatile);
    out.u32(reads.headers.len());
    for (height, header) in &reads.headers {
        out.raw(&height.to_le_bytes());
        out.raw(&[u8::from(header.is_some())]);
        if let Some(known) = header {
            out.raw(&consensus::serialize(&known.header));
            out.raw(&known.median_time.to_le_bytes());
        }
    }
    out.0
}

pub(super) fn decode(bytes: &[u8]) -> Result<Recording> {
    let mut reader = Reader::new(bytes);
    let mut reads = Recording::default();
    reads.values = reader.values()?;
    for _ in 0..reader.u32()? {
        reads.ranges.push(KnownRange {
            from: reader.bytes()?.to_vec(),
            to: reader.maybe()?,
            continues: reader.u8()? != 0,
        });
    }
    reads.volatile = reader.values()?;
    for _ in 0..reader.u32()? {
        let height = reader.u32()?;
        let header = match reader.u8()? {
            0 => None,
            1 => {
                let header: bitcoin::block::Header =
                    consensus::deserialize(reader.take(HEADER_LEN)?)?;
                Some(KnownHeader {
                    hash: header.block_hash(),
                    header,
                    median_time: reader.u32()?,
                })
            }
            other => bail!("a header is neither there nor not: {other}"),
        };
        reads.headers.insert(height, header);
    }
    Ok(reads)
}
