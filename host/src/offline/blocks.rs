//! The blocks that a plugin is given: those of a file, or made up.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction, consensus};
use bytes::Bytes;

use super::maker;
use crate::frame::{Frame, HEADER_LEN};
use crate::lane::Position;
use crate::network::{Network, Params};

/// Blocks over which the median time is taken.
const MEDIAN_TIME_SPAN: usize = 11;

/// A chain of blocks, lowest first.
pub struct BlockList {
    /// The network that they are of.
    pub params: &'static Params,
    /// Where they come from, for people.
    pub source: String,
    /// Height of the first.
    pub first: u32,
    blocks: Vec<Entry>,
}

struct Entry {
    raw: Bytes,
    hash: BlockHash,
    /// Unix seconds.
    time: u32,
}

impl BlockList {
    /// The longest chain in a file of blocks framed as Bitcoin Core frames them: magic, length, block. Any network's, in any
    /// order, obfuscated by a `xor.dat` beside it or not. A file that begins with the first block gets the genesis block.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is of no known network, ends inside a block, or does not say at which height it begins.
    pub fn read(path: &Path) -> Result<Self> {
        let mut bytes = std::fs::read(path)
            .with_context(|| format!("failed to read the blocks of {}", path.display()))?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        let key = std::fs::read(path.with_file_name("xor.dat")).unwrap_or_default();
        unmask(&mut bytes, &key);
        Self::split(name.display().to_string(), bytes.into())
            .with_context(|| format!("failed to read the blocks of {}", path.display()))
    }

    /// `count` regtest blocks full of payments, on top of the hundred in which the first coins ripen. The same each time.
    ///
    /// # Errors
    ///
    /// Never in practice: the blocks are our own.
    pub fn devnet(count: u32) -> Result<Self> {
        let params = Params::of(Network::Regtest);
        let blocks = maker::chain(params, count)?;
        let mut list = Self {
            params,
            source: format!("{count} devnet blocks"),
            first: 0,
            blocks: vec![entry(params.genesis_block.clone().into())?],
        };
        for block in blocks {
            list.blocks
                .push(entry(consensus::serialize(&block).into())?);
        }
        Ok(list)
    }

    fn split(source: String, bytes: Bytes) -> Result<Self> {
        let magic = bytes.first_chunk::<4>().context("the file is empty")?;
        let network = Network::ALL
            .into_iter()
            .find(|network| network.params().magic == *magic)
            .with_context(|| {
                format!(
                    "it begins with {:02x?}, the magic of no network: expected are blocks as in Bitcoin Core's blk*.dat, \
                     each after the network's magic and its length",
                    magic
                )
            })?;
        let params = network.params();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((head, _)) = bytes
            .get(at..)
            .and_then(|rest| rest.split_first_chunk::<8>())
        {
            let [m0, m1, m2, m3, l0, l1, l2, l3] = *head;
            if [m0, m1, m2, m3] == [0; 4] {
                // Space that was allocated ahead.
                break;
            }
            ensure!(
                [m0, m1, m2, m3] == params.magic,
                "no magic of {network} at byte {at}"
            );
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let start = at + 8;
            ensure!(
                length >= HEADER_LEN && start + length <= bytes.len(),
                "the block at byte {at} is not whole: it says that it has {length} bytes, and the file has {} more",
                bytes.len().saturating_sub(start)
            );
            found.push(entry(bytes.slice(start..start + length))?);
            at = start + length;
        }
        let mut blocks = longest(found)?;
        let (first, parent) = match blocks.first() {
            Some(entry) => (entry.hash, header(&entry.raw)?.prev_blockhash),
            None => bail!("there is no block in it"),
        };
        let first = if first == params.genesis_hash {
            0
        } else if parent == params.genesis_hash {
            blocks.insert(0, entry(params.genesis_block.clone().into())?);
            0
        } else {
            let block = blocks.first().map(|entry| &entry.raw);
            block.and_then(coinbase_height).context(
                "its first block is neither that at height 0 nor that at height 1, and its coinbase does not say its height",
            )?
        };
        Ok(Self {
            params,
            source,
            first,
            blocks,
        })
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none, which is never so.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Height of the last.
    pub fn last(&self) -> u32 {
        self.first + (self.blocks.len() as u32).saturating_sub(1)
    }

    /// Where a block stands.
    pub fn position(&self, index: usize) -> Option<Position> {
        Some(Position {
            height: self.first + u32::try_from(index).ok()?,
            hash: self.blocks.get(index)?.hash,
        })
    }

    /// Bytes of a block.
    pub fn size(&self, index: usize) -> usize {
        self.blocks.get(index).map_or(0, |entry| entry.raw.len())
    }

    /// Median of the times of a block and the ten before it, unix seconds.
    pub fn median_time(&self, index: usize) -> u32 {
        let from = (index + 1).saturating_sub(MEDIAN_TIME_SPAN);
        let mut times: Vec<u32> = self
            .blocks
            .get(from..=index)
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.time)
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// A block, decoded.
    ///
    /// # Errors
    ///
    /// When its bytes are not a block.
    pub fn frame(&self, index: usize) -> Result<Frame> {
        let entry = self.blocks.get(index).context("there is no such block")?;
        Frame::decode(entry.raw.clone())
            .with_context(|| format!("block {} cannot be decoded", entry.hash))
    }
}

/// Takes away what Bitcoin Core since version 28 lays over its block files.
fn unmask(bytes: &mut [u8], key: &[u8]) {
    if key.iter().any(|byte| *byte != 0) {
        for (byte, mask) in bytes.iter_mut().zip(key.iter().cycle()) {
            *byte ^= mask;
        }
    }
}

fn header(raw: &Bytes) -> Result<Header> {
    let bytes = raw.get(..HEADER_LEN).context("no header")?;
    consensus::deserialize(bytes).context("a header cannot be decoded")
}

fn entry(raw: Bytes) -> Result<Entry> {
    let header = header(&raw)?;
    Ok(Entry {
        hash: header.block_hash(),
        time: header.time,
        raw,
    })
}

/// The longest chain of these blocks, lowest first; the first seen of equals.
fn longest(found: Vec<Entry>) -> Result<Vec<Entry>> {
    let mut parents = HashMap::new();
    let mut children: HashMap<BlockHash, Vec<usize>> = HashMap::new();
    let mut known = HashMap::new();
    for (index, entry) in found.iter().enumerate() {
        if known.insert(entry.hash, index).is_none() {
            let parent = header(&entry.raw)?.prev_blockhash;
            parents.insert(index, parent);
            children.entry(parent).or_default().push(index);
        }
    }
    let mut open: Vec<(usize, u32)> = parents
        .iter()
        .filter(|(_, parent)| !known.contains_key(*parent))
        .map(|(index, _)| (*index, 1))
        .collect();
    let mut best: Option<(usize, u32)> = None;
    while let Some((index, length)) = open.pop() {
        let longer =
            best.is_none_or(|(first, most)| length > most || (length == most && index < first));
        if longer {
            best = Some((index, length));
        }
        let hash = found.get(index).map(|entry| entry.hash);
        let next = hash.and_then(|hash| children.get(&hash));
        open.extend(next.into_iter().flatten().map(|&index| (index, length + 1)));
    }
    let mut chain = Vec::new();
    let mut at = best.map(|(tip, _)| tip);
    let mut found: Vec<Option<Entry>> = found.into_iter().map(Some).collect();
    while let Some(index) = at {
        chain.extend(found.get_mut(index).and_then(Option::take));
        at = parents
            .get(&index)
            .and_then(|parent| known.get(parent))
            .copied();
    }
    chain.reverse();
    Ok(chain)
}

/// The height that a block's coinbase begins with (BIP34).
fn coinbase_height(raw: &Bytes) -> Option<u32> {
    let rest = raw.get(HEADER_LEN..)?;
    let (_, count) = consensus::deserialize_partial::<bitcoin::VarInt>(rest).ok()?;
    let (coinbase, _) = consensus::deserialize_partial::<Transaction>(rest.get(count..)?).ok()?;
    let input = coinbase.input.first()?;
    if input.previous_output.txid.to_byte_array() != [0; 32] {
        return None;
    }
    let script = input.script_sig.as_bytes();
    let (&length, rest) = script.split_first()?;
    let number = rest
        .get(..usize::from(length))
        .filter(|_| (1..=4).contains(&length))?;
    let mut bytes = [0; 4];
    bytes.get_mut(..number.len())?.copy_from_slice(number);
    Some(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn framed(list: &BlockList, order: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &index in order {
            let raw = &list.blocks[index].raw;
            bytes.extend(list.params.magic);
            bytes.extend((raw.len() as u32).to_le_bytes());
            bytes.extend_from_slice(raw);
        }
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<BlockList> {
        BlockList::split("a file".to_owned(), bytes.into())
    }

    #[test]
    fn blocks_in_any_order_become_a_chain_with_the_genesis_block() {
        let made = BlockList::devnet(3).unwrap();
        let order: Vec<usize> = (1..made.len()).rev().collect();
        let mut bytes = framed(&made, &order);
        bytes.extend([0; 100]);
        let read = read(bytes).unwrap();
        assert_eq!(read.params.base, Network::Regtest);
        assert_eq!((read.first, read.last()), (0, 103));
        assert_eq!(read.position(0).unwrap().hash, made.params.genesis_hash);
        assert_eq!(read.position(103), made.position(103));
        assert_eq!(
            read.frame(50).unwrap().hash,
            made.position(50).unwrap().hash
        );
        assert_eq!(read.median_time(0), made.blocks[0].time);
        assert_eq!(read.median_time(20), made.blocks[15].time);
    }

    #[test]
    fn a_file_from_the_middle_of_a_chain_begins_at_the_height_of_its_coinbase() {
        let made = BlockList::devnet(1).unwrap();
        let read = read(framed(&made, &[40, 41, 42])).unwrap();
        assert_eq!((read.first, read.last()), (40, 42));
    }

    #[test]
    fn a_masked_file_is_read_with_the_key_beside_it() {
        let made = BlockList::devnet(1).unwrap();
        let mut bytes = framed(&made, &[1, 2]);
        let key = [1, 2, 3, 4, 5, 6, 7, 8];
        unmask(&mut bytes, &key);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blk00000.dat");
        std::fs::write(&path, bytes).unwrap();
        assert!(BlockList::read(&path).is_err());
        std::fs::write(folder.path().join("xor.dat"), key).unwrap();
        assert_eq!(BlockList::read(&path).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_block_file_is_refused() {
        let made = BlockList::devnet(1).unwrap();
        let whole = framed(&made, &[1, 2]);
        for (bytes, why) in [
            (vec![], "empty"),
            (b"nothing like it".to_vec(), "magic of no network"),
            (whole[..whole.len() - 1].to_vec(), "not whole"),
            ([whole.clone(), vec![1; 20]].concat(), "no magic of regtest"),
            (vec![0xfa, 0xbf, 0xb5, 0xda, 0xff, 0, 0, 0], "not whole"),
        ] {
            let error = format!("{:#}", read(bytes).err().unwrap());
            assert!(error.contains(why), "{error}");
        }
    }
}
