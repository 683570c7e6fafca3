//! The bytes of a snapshot.
//!
//! ```text
//! header   256 bytes   "BMSNAP\r\n" │ version u32 = 1 │ network magic 4 │ plugin: length u8, 64 bytes with zeros behind
//!                      │ state version u32 │ component SHA-256 32 │ height u32 │ block hash 32 │ entries u64 │ state hash 32
//!                      │ coins u8: 1 if the next field counts │ hash_serialized_3 32 │ zeros │ CRC-32 of these u32
//! chunk                bytes u32 │ entries u32 │ CRC-32 of the rest u32 │ entry …
//! entry                key length u16 │ value length u32 │ key │ value             in the order of the keys
//! end                  12 zeros, a chunk of nothing
//! trailer  32 bytes    SHA-256 of everything before
//! ```
//!
//! Numbers are little endian, hashes in internal byte order. The state hash is the SHA-256 of all entries as they stand in the
//! chunks, so it is the same however they are cut.

use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};

use super::SnapshotError;
use crate::store::{Cursor, MAX_KEY, MAX_VALUE};

const TAG: [u8; 8] = *b"BMSNAP\r\n";
/// The version that is written.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 256;
const NAME_BYTES: usize = 64;
const CHUNK_HEAD: usize = 12;
const ENTRY_HEAD: usize = 6;
/// A chunk is closed when it has so many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// The most that a chunk can have: one entry of the largest size on top of the above.
const MAX_CHUNK: usize = CHUNK_BYTES + ENTRY_HEAD + MAX_KEY + MAX_VALUE;

/// What the file is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Of the network, in wire order.
    pub magic: [u8; 4],
    /// The plugin's name.
    pub plugin: String,
    /// Its state version.
    pub state_version: u32,
    /// SHA-256 of the component that made the state.
    pub component: [u8; 32],
    /// The last block in it.
    pub cursor: Cursor,
    /// How many keys there are.
    pub entries: u64,
    /// SHA-256 of all entries.
    pub state_hash: [u8; 32],
    /// Bitcoin Core's `hash_serialized_3` of the coins, for a plugin with that role.
    pub coins: Option<[u8; 32]>,
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&TAG);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.magic);
        let mut name = self.plugin.as_bytes().to_vec();
        bytes.push(name.len().min(NAME_BYTES) as u8);
        name.resize(NAME_BYTES, 0);
        bytes.extend_from_slice(&name);
        bytes.extend_from_slice(&self.state_version.to_le_bytes());
        bytes.extend_from_slice(&self.component);
        bytes.extend_from_slice(&self.cursor.height.to_le_bytes());
        bytes.extend_from_slice(&self.cursor.hash);
        bytes.extend_from_slice(&self.entries.to_le_bytes());
        bytes.extend_from_slice(&self.state_hash);
        bytes.push(self.coins.is_some().into());
        bytes.extend_from_slice(&self.coins.unwrap_or_default());
        bytes.resize(HEADER_BYTES - 4, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().unwrap_or([0; HEADER_BYTES])
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// When they are no header, or of another version.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, SnapshotError> {
        let damaged = || SnapshotError::Damaged("its header");
        let rest = bytes
            .strip_prefix(&TAG)
            .ok_or(SnapshotError::NotASnapshot)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let version = u32::from_le_bytes(*version);
        if version > VERSION {
            return Err(SnapshotError::Newer {
                found: version,
                known: VERSION,
            });
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let (magic, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (&length, rest) = rest.split_first().ok_or_else(damaged)?;
        let (name, rest) = rest.split_first_chunk::<NAME_BYTES>().ok_or_else(damaged)?;
        let name = name.get(..length.into()).ok_or_else(damaged)?;
        let (state_version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (component, rest) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        let (height, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (hash, rest) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        let (entries, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (state_hash, rest) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        let (&has_coins, rest) = rest.split_first().ok_or_else(damaged)?;
        let (coins, _) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        Ok(Self {
            magic: *magic,
            plugin: String::from_utf8(name.to_vec()).map_err(|_| damaged())?,
            state_version: u32::from_le_bytes(*state_version),
            component: *component,
            cursor: Cursor {
                height: u32::from_le_bytes(*height),
                hash: *hash,
            },
            entries: u64::from_le_bytes(*entries),
            state_hash: *state_hash,
            coins: (has_coins == 1).then_some(*coins),
        })
    }
}

/// Writes the chunks.
pub struct ChunkWriter<W> {
    out: W,
    chunk: Vec<u8>,
    in_chunk: u32,
    entries: u64,
    state: Sha256,
}

impl<W: Write> ChunkWriter<W> {
    /// Writes behind what is there.
    pub fn new(out: W) -> Self {
        Self {
            out,
            chunk: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
            in_chunk: 0,
            entries: 0,
            state: Sha256::new(),
        }
    }

    /// The next entry.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        let start = self.chunk.len();
        self.chunk
            .extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.chunk
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        self.state
            .update(self.chunk.get(start..).unwrap_or_default());
        self.in_chunk += 1;
        self.entries += 1;
        if self.chunk.len() >= CHUNK_BYTES {
            self.close_chunk()?;
        }
        Ok(())
    }

    fn close_chunk(&mut self) -> Result<(), SnapshotError> {
        let mut head = Vec::with_capacity(CHUNK_HEAD);
        head.extend_from_slice(&(self.chunk.len() as u32).to_le_bytes());
        head.extend_from_slice(&self.in_chunk.to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&self.chunk).to_le_bytes());
        self.out
            .write_all(&head)
            .and_then(|()| self.out.write_all(&self.chunk))
            .map_err(SnapshotError::writing)?;
        self.chunk.clear();
        self.in_chunk = 0;
        Ok(())
    }

    /// Writes the end of the chunks; gives the file back, the number of entries and the state hash.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn finish(mut self) -> Result<(W, u64, [u8; 32]), SnapshotError> {
        if self.in_chunk > 0 {
            self.close_chunk()?;
        }
        self.out
            .write_all(&[0; CHUNK_HEAD])
            .map_err(SnapshotError::writing)?;
        Ok((self.out, self.entries, self.state.finalize().into()))
    }
}

/// Reads a whole file, and hashes what it reads.
pub struct SnapshotReader<R> {
    input: R,
    all: Sha256,
    header: Header,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn open(mut input: R) -> Result<Self, SnapshotError> {
        let mut bytes = [0; HEADER_BYTES];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match input.read(rest) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SnapshotError::reading("its header")(error)),
            }
        }
        if !bytes.starts_with(&TAG) {
            return Err(SnapshotError::NotASnapshot);
        }
        if read < HEADER_BYTES {
            return Err(SnapshotError::Torn("its header"));
        }
        let header = Header::decode(&bytes)?;
        let mut all = Sha256::new();
        all.update(bytes);
        Ok(Self { input, all, header })
    }

    /// What the file is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Gives every entry, and says at the end whether the file is whole: what was given counts only then.
    ///
    /// # Errors
    ///
    /// When it is not, or `give` fails.
    pub fn entries(
        mut self,
        mut give: impl FnMut(&[u8], &[u8]) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let damaged = SnapshotError::Damaged;
        let mut state = Sha256::new();
        let mut count = 0;
        let mut chunk = Vec::new();
        loop {
            let mut head = [0; CHUNK_HEAD];
            self.read(&mut head, "a chunk")?;
            if head == [0; CHUNK_HEAD] {
                break;
            }
            let word = |at: usize| {
                let bytes = head.get(at..at + 4).and_then(|word| word.try_into().ok());
                u32::from_le_bytes(bytes.unwrap_or_default())
            };
            let (length, entries, crc) = (word(0) as usize, word(4), word(8));
            if length > MAX_CHUNK {
                return Err(damaged("a chunk is too long"));
            }
            self.read_chunk(length, &mut chunk)?;
            if crc32fast::hash(&chunk) != crc {
                return Err(damaged("the checksum of a chunk"));
            }
            state.update(&chunk);
            let mut rest = chunk.as_slice();
            for _ in 0..entries {
                let (key, value, behind) = entry(rest).ok_or(damaged("an entry"))?;
                give(key, value)?;
                rest = behind;
                count += 1;
            }
            if !rest.is_empty() {
                return Err(damaged("a chunk has more than its entries"));
            }
        }
        let all: [u8; 32] = self.all.clone().finalize().into();
        let mut trailer = [0; 32];
        self.read(&mut trailer, "its trailer")?;
        if trailer != all {
            return Err(damaged("its hash"));
        }
        let state: [u8; 32] = state.finalize().into();
        if count != self.header.entries || state != self.header.state_hash {
            return Err(damaged("the entries are not those of its header"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged("there is more behind its end")),
            Err(error) => Err(SnapshotError::reading("its end")(error)),
        }
    }

    /// As much memory as there are bytes: the length may be wrong.
    fn read_chunk(&mut self, length: usize, chunk: &mut Vec<u8>) -> Result<(), SnapshotError> {
        chunk.clear();
        let mut input = self.input.by_ref().take(length as u64);
        let read = input
            .read_to_end(chunk)
            .map_err(SnapshotError::reading("a chunk"))?;
        if read < length {
            return Err(SnapshotError::Torn("a chunk"));
        }
        self.all.update(chunk);
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8], what: &'static str) -> Result<(), SnapshotError> {
        self.input
            .read_exact(bytes)
            .map_err(SnapshotError::reading(what))?;
        self.all.update(bytes);
        Ok(())
    }
}

/// The entry at the beginning, and what is behind it.
fn entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = bytes.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key).into())?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn entries() -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..40u8)
            .map(|n| (vec![n, 7], vec![n; usize::from(n)]))
            .collect()
    }

    /// A whole file, as an export writes it.
    fn file(entries: &[(Vec<u8>, Vec<u8>)]) -> (Header, Vec<u8>) {
        let mut chunks = ChunkWriter::new(Vec::new());
        for (key, value) in entries {
            chunks.put(key, value).unwrap();
        }
        let (body, count, state_hash) = chunks.finish().unwrap();
        let header = Header {
            magic: [1, 2, 3, 4],
            plugin: "watch".to_owned(),
            state_version: 5,
            component: [6; 32],
            cursor: Cursor {
                height: 7,
                hash: [8; 32],
            },
            entries: count,
            state_hash,
            coins: Some([9; 32]),
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        (header, bytes)
    }

    type Read = (Header, Vec<(Vec<u8>, Vec<u8>)>);

    fn read(bytes: &[u8]) -> Result<Read, SnapshotError> {
        let reader = SnapshotReader::open(bytes)?;
        let header = reader.header().clone();
        let mut entries = Vec::new();
        reader.entries(|key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok((header, entries))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (header, bytes) = file(&entries());
        assert_eq!(read(&bytes).unwrap(), (header, entries()));
        let (header, bytes) = file(&[]);
        assert_eq!(read(&bytes).unwrap(), (header, Vec::new()));
    }

    #[test]
    fn chunks_are_cut_and_the_state_hash_does_not_depend_on_them() {
        let large: Vec<_> = (0..3u8).map(|n| (vec![n], vec![n; 700_000])).collect();
        let (header, bytes) = file(&large);
        assert_eq!(read(&bytes).unwrap(), (header.clone(), large.clone()));
        let mut hash = Sha256::new();
        for (key, value) in &large {
            hash.update((key.len() as u16).to_le_bytes());
            hash.update((value.len() as u32).to_le_bytes());
            hash.update(key);
            hash.update(value);
        }
        assert_eq!(header.state_hash, <[u8; 32]>::from(hash.finalize()));
    }

    #[test]
    fn a_file_torn_at_any_byte_is_refused() {
        let (_, bytes) = file(&entries());
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).unwrap_err();
            let torn = matches!(error, SnapshotError::Torn(_));
            let nothing = length < TAG.len() && matches!(error, SnapshotError::NotASnapshot);
            assert!(torn || nothing, "{length}: {error}");
        }
    }

    #[test]
    fn a_file_in_which_any_byte_was_changed_is_refused() {
        let (_, bytes) = file(&entries());
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x20;
            assert!(read(&altered).is_err(), "byte {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(read(&longer).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let (_, mut bytes) = file(&entries());
        bytes[8] = 2;
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
