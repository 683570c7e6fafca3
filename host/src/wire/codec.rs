//! The framing of protocol version 1: magic, command, length, checksum, payload.

use bitcoin::hashes::{Hash, sha256d};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a block's header.
const BLOCK_HEADER: usize = 80;
/// Bytes before a payload.
pub const HEADER_SIZE: usize = 24;
/// The longest payload of any message (Core's `MAX_PROTOCOL_MESSAGE_LENGTH`).
pub const MAX_PAYLOAD: usize = 4_000_000;
/// What a message header holds in front of an extended one (Bitcoin SV): this command, this length, and no checksum.
const EXTENDED: (&str, u32) = ("extmsg", u32::MAX);
/// The command and the length, 64 bits, of an extended header.
const EXTENSION_SIZE: usize = 20;
/// The longest piece of a block that is handed on at once.
const MAX_PIECE: usize = 1 << 20;
/// What peers with `protoconf` take until they say otherwise (Bitcoin SV's `LEGACY_MAX_PROTOCOL_PAYLOAD_LENGTH`).
pub const LEGACY_PAYLOAD: u32 = 1 << 20;
/// The most inventory entries in one message (Core's `MAX_INV_SZ`).
pub const MAX_INVENTORY: usize = 50_000;
/// The most headers in one message (Core's `MAX_HEADERS_RESULTS`).
pub const MAX_HEADERS_RESULTS: usize = 2_000;
/// The most addresses in one message (Core's `MAX_ADDR_TO_SEND`).
pub const MAX_ADDRESSES: usize = 1_000;

/// A message whose payload has not been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// The command, without its padding.
    pub command: Command,
    /// The payload; a piece of the buffer it arrived in, not a copy.
    pub payload: Bytes,
}

/// The name of a message: up to twelve printable ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command {
    bytes: [u8; 12],
    length: u8,
}

impl Command {
    /// The command in a message header: printable characters, then zeros.
    pub fn from_padded(bytes: [u8; 12]) -> Option<Command> {
        let length = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        let (name, padding) = bytes.split_at_checked(length)?;
        let valid = name.iter().all(|byte| (0x20..0x7f).contains(byte))
            && padding.iter().all(|byte| *byte == 0);
        valid.then_some(Command {
            bytes,
            length: u8::try_from(length).ok()?,
        })
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Why bytes are no messages. Nothing after such an error can be trusted: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another network, or no Bitcoin peer at all.
    #[error("wrong magic {0:02x?}")]
    Magic([u8; 4]),
    /// The command is not printable ASCII padded with zeros.
    #[error("malformed command {0:02x?}")]
    Command([u8; 12]),
    /// The payload is longer than such a message may be.
    #[error("{command} of {length} bytes, at most {limit}")]
    TooLong {
        /// The command.
        command: Command,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The payload does not hash to the checksum.
    #[error("wrong checksum of {0}")]
    Checksum(Command),
}

impl WireError {
    /// Whether it is a block of 4 GiB or more. Only an extended header can announce one, so it may well be an honest one
    /// of a chain that has such messages.
    pub fn is_huge_block(&self) -> bool {
        matches!(self, WireError::TooLong { command, length, .. }
            if command.as_str() == "block" && u32::try_from(*length).is_err())
    }
}

/// The longest payload of a command. What is small by nature gets a small bound, so that a peer cannot make us buffer
/// megabytes for a ping.
pub(super) fn payload_limit(command: &str) -> usize {
    match command {
        "verack" | "wtxidrelay" | "sendaddrv2" | "sendheaders" | "getaddr" | "mempool"
        | "filterclear" => 64,
        "ping" | "pong" | "feefilter" | "sendcmpct" => 64,
        "version" => 1_024,
        "protoconf" => 1 << 20,
        "headers" => 3 + MAX_HEADERS_RESULTS * 81,
        "inv" | "getdata" | "notfound" => 5 + MAX_INVENTORY * 36,
        "getheaders" | "getblocks" => 4 + 3 + 101 * 32 + 32,
        "addr" => 3 + MAX_ADDRESSES * 30,
        // An address of version 2 has up to 512 bytes.
        "addrv2" => 3 + MAX_ADDRESSES * (4 + 9 + 1 + 3 + 512 + 2),
        _ => MAX_PAYLOAD,
    }
}

/// A piece of a block that is too long to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPiece {
    /// With the first piece, which holds the whole header: the bytes of the block.
    pub total: Option<u64>,
    /// The bytes, at most a million or so.
    pub bytes: Bytes,
    /// Nothing comes after it.
    pub last: bool,
}

/// A block that is being handed on.
#[derive(Clone, Copy, Debug)]
struct Stream {
    total: u64,
    left: u64,
}

#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    command: Command,
    length: usize,
    /// None with an extended header, which has none.
    checksum: Option<[u8; 4]>,
}

/// Cuts the bytes of a connection into messages, whatever pieces they arrive in.
#[derive(Debug)]
pub struct Decoder {
    magic: [u8; 4],
    verify_blocks: bool,
    largest_block: u64,
    stream_above: usize,
    extended: bool,
    buffer: BytesMut,
    header: Option<FrameHeader>,
    stream: Option<Stream>,
    failed: Option<WireError>,
}

impl Decoder {
    /// A decoder for the network with this magic.
    pub fn new(magic: [u8; 4]) -> Decoder {
        Decoder {
            magic,
            verify_blocks: true,
            largest_block: MAX_PAYLOAD as u64,
            stream_above: usize::MAX,
            extended: false,
            buffer: BytesMut::new(),
            header: None,
            stream: None,
            failed: None,
        }
    }

    /// Whether the checksums of `block` messages are compared; they are, unless told otherwise. For a caller that
    /// checks each block's merkle root and witness commitment they say nothing new: these hash the same bytes.
    pub fn set_verify_blocks(&mut self, verify: bool) {
        self.verify_blocks = verify;
    }

    /// Bounds `block` messages: [`MAX_PAYLOAD`], or more on chains with larger blocks. One of more than `stream_above` bytes
    /// comes in pieces, from [`next_piece`](Self::next_piece); its checksum is not compared.
    pub fn set_blocks(&mut self, largest: u64, stream_above: usize) {
        self.largest_block = largest.max(MAX_PAYLOAD as u64);
        self.stream_above = stream_above;
    }

    /// Whether messages may come with the extended header.
    pub fn set_extended(&mut self, extended: bool) {
        self.extended = extended;
    }

    /// Whether a block is on its way in pieces.
    pub fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// The next piece of a block that is too long to be held, as far as it is here. The first has the whole header.
    pub fn next_piece(&mut self) -> Option<BlockPiece> {
        let stream = self.stream.as_mut()?;
        let first = stream.left == stream.total;
        if self.buffer.is_empty() || (first && self.buffer.len() < BLOCK_HEADER) {
            return None;
        }
        let left = usize::try_from(stream.left).unwrap_or(usize::MAX);
        let bytes = self
            .buffer
            .split_to(self.buffer.len().min(left).min(MAX_PIECE))
            .freeze();
        stream.left -= bytes.len() as u64;
        let piece = BlockPiece {
            total: first.then_some(stream.total),
            bytes,
            last: stream.left == 0,
        };
        if piece.last {
            self.stream = None;
        }
        Some(piece)
    }

    /// Bytes of a message that is not whole yet, its header perhaps not included.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer that bytes may be read into directly, instead of [`feed`](Self::feed). It has room for the message
    /// that is under way, so that a block is not moved as it grows.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message; nothing when more bytes are needed. After an error it returns the same error again.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<RawMessage>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.stream.is_some() {
            return Ok(None);
        }
        let result = self.next_message();
        if let Err(error) = result {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
        }
        result
    }

    fn next_message(&mut self) -> Result<Option<RawMessage>, WireError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(header) = self.next_header()? else {
                    return Ok(None);
                };
                self.header = Some(header);
                header
            }
        };
        if header.command.as_str() == "block" && header.length > self.stream_above {
            self.header = None;
            let total = header.length as u64;
            self.stream = Some(Stream { total, left: total });
            return Ok(None);
        }
        if self.buffer.len() < header.length {
            self.buffer.reserve(header.length - self.buffer.len());
            return Ok(None);
        }
        self.header = None;
        let payload = self.buffer.split_to(header.length).freeze();
        let verify = self.verify_blocks || header.command.as_str() != "block";
        if verify && header.checksum.is_some_and(|sum| checksum(&payload) != sum) {
            return Err(WireError::Checksum(header.command));
        }
        Ok(Some(RawMessage {
            command: header.command,
            payload,
        }))
    }

    fn next_header(&mut self) -> Result<Option<FrameHeader>, WireError> {
        // Whoever does not speak our protocol is found out by the first four bytes, before it can keep us waiting.
        if let Some(magic) = self.buffer.first_chunk::<4>()
            && *magic != self.magic
        {
            return Err(WireError::Magic(*magic));
        }
        let Some(bytes) = self.buffer.first_chunk::<HEADER_SIZE>().copied() else {
            return Ok(None);
        };
        let (_, rest) = bytes.split_at(4);
        let (name, rest) = rest.split_at(12);
        let (length, sum) = rest.split_at(4);
        let name: [u8; 12] = name.try_into().unwrap_or_default();
        let command = Command::from_padded(name).ok_or(WireError::Command(name))?;
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        let sum: [u8; 4] = sum.try_into().unwrap_or_default();
        let mut header = FrameHeader {
            command,
            length: length as usize,
            checksum: Some(sum),
        };
        if self.extended && (command.as_str(), length) == EXTENDED {
            let Some((_, extension)) = self
                .buffer
                .get(..HEADER_SIZE + EXTENSION_SIZE)
                .and_then(|bytes| bytes.split_at_checked(HEADER_SIZE))
            else {
                return Ok(None);
            };
            let (name, length) = extension.split_at(12);
            let name: [u8; 12] = name.try_into().unwrap_or_default();
            header = FrameHeader {
                command: Command::from_padded(name).ok_or(WireError::Command(name))?,
                length: usize::try_from(u64::from_le_bytes(length.try_into().unwrap_or_default()))
                    .unwrap_or(usize::MAX),
                checksum: None,
            };
            self.buffer.advance(EXTENSION_SIZE);
        }
        self.buffer.advance(HEADER_SIZE);
        let FrameHeader {
            command, length, ..
        } = header;
        let limit = match command.as_str() {
            "block" => usize::try_from(self.largest_block).unwrap_or(usize::MAX),
            other => payload_limit(other),
        };
        if length > limit {
            return Err(WireError::TooLong {
                command,
                length,
                limit,
            });
        }
        Ok(Some(header))
    }
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(payload).to_byte_array();
    [a, b, c, d]
}

/// Frames a payload. `command` has at most twelve characters.
pub fn encode_frame(magic: [u8; 4], command: &str, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_SIZE + payload.len());
    let mut name = [0u8; 12];
    for (slot, byte) in name.iter_mut().zip(command.bytes()) {
        *slot = byte;
    }
    frame.extend_from_slice(&magic);
    frame.extend_from_slice(&name);
    frame.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    frame.extend_from_slice(&checksum(payload));
    frame.extend_from_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests;
