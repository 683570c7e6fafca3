//! Blocks as they lie in `blk*.dat` files: network magic, length (u32 LE), block, again and again.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bitcoin::block::Header;
use bitcoin::consensus::{Decodable, deserialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::Magic;
use bitcoin::{Block, BlockHash};

/// Bytes of a block header.
const HEADER_LEN: usize = 80;

/// One serialised block, a window into the file it was read from, with what serving it needs computed once.
#[derive(Clone, Debug)]
pub struct RawBlock {
    source: Arc<Vec<u8>>,
    range: Range<usize>,
    header: Header,
    hash: BlockHash,
    checksum: [u8; 4],
}

impl RawBlock {
    /// Takes the window `range` of `source` as a block. Only the header is decoded.
    ///
    /// # Errors
    /// When the window is outside the source or too short for a header.
    pub fn new(source: Arc<Vec<u8>>, range: Range<usize>) -> Result<Self> {
        let bytes = source
            .get(range.clone())
            .context("block reaches past the end of its file")?;
        let head = bytes
            .get(..HEADER_LEN)
            .context("block is shorter than a header")?;
        let header: Header = deserialize(head).context("cannot decode block header")?;
        let [a, b, c, d, ..] = sha256d::Hash::hash(bytes).to_byte_array();
        Ok(Self {
            hash: header.block_hash(),
            header,
            checksum: [a, b, c, d],
            source,
            range,
        })
    }

    /// A block of our own making.
    ///
    /// # Errors
    /// Never for a block that serialises to more than a header, which every block does.
    pub fn from_block(block: &Block) -> Result<Self> {
        let bytes = bitcoin::consensus::serialize(block);
        let range = 0..bytes.len();
        Self::new(Arc::new(bytes), range)
    }

    /// The serialised block, witnesses included.
    pub fn bytes(&self) -> &[u8] {
        self.source.get(self.range.clone()).unwrap_or_default()
    }

    /// The block, decoded.
    ///
    /// # Errors
    /// When the bytes are not one whole block.
    pub fn decode(&self) -> Result<Block> {
        let mut rest = self.bytes();
        let block = Block::consensus_decode(&mut rest)
            .with_context(|| format!("cannot decode block {}", self.hash))?;
        ensure!(
            rest.is_empty(),
            "block {} has {} bytes too many",
            self.hash,
            rest.len()
        );
        Ok(block)
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// First four bytes of the SHA256d over the bytes, as a `block` message carries them.
    pub fn checksum(&self) -> [u8; 4] {
        self.checksum
    }
}

/// Reads all blocks of a file, in file order. Zero bytes after the last block (preallocated space) are passed over.
///
/// # Errors
/// When the file cannot be read, has another network's magic, or ends inside a block.
pub fn read(path: &Path, magic: Magic) -> Result<Vec<RawBlock>> {
    let source =
        Arc::new(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    split(&source, magic).with_context(|| format!("in {}", path.display()))
}

fn split(source: &Arc<Vec<u8>>, magic: Magic) -> Result<Vec<RawBlock>> {
    let mut blocks = Vec::new();
    let mut at = 0_usize;
    while let Some((head, _)) = source
        .get(at..)
        .and_then(|rest| rest.split_first_chunk::<8>())
    {
        let [m0, m1, m2, m3, l0, l1, l2, l3] = *head;
        if [m0, m1, m2, m3] == [0; 4] {
            break;
        }
        ensure!(
            [m0, m1, m2, m3] == magic.to_bytes(),
            "no network magic at byte {at}"
        );
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))?;
        let start = at.saturating_add(8);
        let end = start.saturating_add(len);
        blocks.push(
            RawBlock::new(Arc::clone(source), start..end)
                .with_context(|| format!("block at byte {at}"))?,
        );
        at = end;
    }
    Ok(blocks)
}

/// Writes blocks in the same framing.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'a>(
    path: &Path,
    magic: Magic,
    blocks: impl IntoIterator<Item = &'a RawBlock>,
) -> Result<()> {
    use std::io::Write;
    let file =
        fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    for block in blocks {
        let len = u32::try_from(block.bytes().len())?;
        out.write_all(&magic.to_bytes())?;
        out.write_all(&len.to_le_bytes())?;
        out.write_all(block.bytes())?;
    }
    out.flush()
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use bitcoin::Network;

    #[test]
    fn a_torn_tail_and_a_foreign_magic_are_errors_and_padding_is_not() {
        let genesis =
            RawBlock::from_block(&bitcoin::constants::genesis_block(Network::Regtest)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blk.dat");
        write(&path, Magic::REGTEST, [&genesis, &genesis]).unwrap();
        assert_eq!(read(&path, Magic::REGTEST).unwrap().len(), 2);
        assert!(read(&path, Magic::BITCOIN).is_err());

        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(read(&path, Magic::REGTEST).is_err());

        let mut padded = whole;
        padded.extend([0; 64]);
        fs::write(&path, &padded).unwrap();
        assert_eq!(read(&path, Magic::REGTEST).unwrap().len(), 2);
    }
}
