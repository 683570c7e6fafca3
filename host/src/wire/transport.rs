//! The bytes of a connection as messages, and messages as bytes: version 1 in the clear, or version 2 (BIP324).
//!
//! No socket and no clock: bytes from the peer go in by [`feed`](Transport::feed), messages come out of
//! [`next`](Transport::next), and what is to be sent waits in [`pop`](Transport::pop). A responder does not know which
//! version its peer speaks until it has heard up to sixteen bytes; messages that are sent before the transport stands
//! wait for it. Memory is bounded by one packet of [`MAX_CONTENTS`] and what the caller fed last.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::codec::{BlockPiece, Decoder, RawMessage, WireError, encode_frame};

mod encrypted;
mod entropy;
mod handshake;
mod short_id;

pub use encrypted::MAX_CONTENTS;
use encrypted::Packets;
pub use entropy::{Entropy, Secret};
use handshake::{Handshake, V1_VERSION};

/// Messages that may wait for a transport that does not stand yet. Nothing but our `version` does.
const MAX_WAITING: usize = 16;

/// Which of the two transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// In the clear.
    V1,
    /// Encrypted, BIP324.
    V2,
}

impl TransportKind {
    /// `v1` or `v2`.
    pub const fn name(self) -> &'static str {
        match self {
            TransportKind::V1 => "v1",
            TransportKind::V2 => "v2",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<TransportKind> {
        [TransportKind::V1, TransportKind::V2]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub enum Opening {
    /// Version 1, whoever connected.
    V1,
    /// Version 2 to a peer that we connected to.
    Initiator(Secret),
    /// What the peer that connected to us begins with.
    Responder(Secret),
    /// Version 2 with a peer that connected to us; version 1 is refused.
    EncryptedResponder(Secret),
}

/// Why the bytes of a transport are no messages. Nothing after it can be trusted: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The message itself is wrong; the only error of version 1.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Asked for version 2, it speaks version 1.
    #[error("speaks version 1 of the transport")]
    VersionOne,
    /// It speaks version 1, on another network.
    #[error("version 1 with magic {0:02x?}")]
    OtherNetwork([u8; 4]),
    /// More than 4,095 bytes of garbage.
    #[error("no end of the garbage")]
    Garbage,
    /// A packet that its key does not open: spoiled, of another network, or not BIP324 at all.
    #[error("a packet cannot be decrypted")]
    Decrypt,
    /// A packet that announces more than any message has.
    #[error("packet of {length} bytes, at most {limit}")]
    PacketTooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No keys from this secret: one chance in 2^128.
    #[error("no keys for the handshake")]
    Keys,
}

#[derive(Debug)]
enum State {
    /// We wait for enough of the peer's first bytes.
    Undecided {
        secret: Secret,
        v1: bool,
        heard: BytesMut,
    },
    Clear(Box<Decoder>),
    Handshake(Handshake),
    Encrypted(Box<Packets>),
}

/// One connection's transport.
#[derive(Debug)]
pub struct Transport {
    magic: [u8; 4],
    verify_blocks: bool,
    /// Bytes of the largest block, and of the largest that is not taken in pieces.
    blocks: Option<(u64, usize)>,
    state: State,
    /// Messages for a transport that does not stand yet.
    waiting: VecDeque<(String, Vec<u8>)>,
    outbox: VecDeque<Bytes>,
    failed: Option<TransportError>,
}

impl Transport {
    /// A transport of the network with this magic.
    pub fn new(magic: [u8; 4], opening: Opening) -> Transport {
        let mut transport = Transport {
            magic,
            verify_blocks: true,
            blocks: None,
            state: State::Clear(Box::new(Decoder::new(magic))),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            failed: None,
        };
        match opening {
            Opening::V1 => {}
            Opening::Initiator(secret) => {
                transport.state = State::Handshake(Handshake::new(magic, true, secret));
                let _ = transport.advance();
            }
            Opening::Responder(secret) | Opening::EncryptedResponder(secret) => {
                transport.state = State::Undecided {
                    secret,
                    v1: matches!(opening, Opening::Responder(_)),
                    heard: BytesMut::new(),
                };
            }
        }
        transport
    }

    /// See [`Decoder::set_blocks`]. A packet of version 2 holds less than 16 MiB, so no block comes in pieces there.
    pub fn set_blocks(&mut self, largest: u64, stream_above: usize) {
        self.blocks = Some((largest, stream_above));
        if let State::Clear(decoder) = &mut self.state {
            decoder.set_blocks(largest, stream_above);
        }
    }

    /// See [`Decoder::set_extended`].
    pub fn set_extended(&mut self, extended: bool) {
        if let State::Clear(decoder) = &mut self.state {
            decoder.set_extended(extended);
        }
    }

    /// Whether a block is coming in pieces.
    pub fn is_streaming(&self) -> bool {
        matches!(&self.state, State::Clear(decoder) if decoder.is_streaming())
    }

    /// The next piece of that block, as far as it is here.
    pub fn next_piece(&mut self) -> Option<BlockPiece> {
        match &mut self.state {
            State::Clear(decoder) => decoder.next_piece(),
            _ => None,
        }
    }

    /// See [`Decoder::set_verify_blocks`]. Version 2 has no such checksums: its packets are authenticated.
    pub fn set_verify_blocks(&mut self, verify: bool) {
        self.verify_blocks = verify;
        if let State::Clear(decoder) = &mut self.state {
            decoder.set_verify_blocks(verify);
        }
    }

    /// Which transport it is; nothing while the handshake goes on.
    pub fn kind(&self) -> Option<TransportKind> {
        match self.state {
            State::Undecided { .. } | State::Handshake(_) => None,
            State::Clear(_) => Some(TransportKind::V1),
            State::Encrypted(_) => Some(TransportKind::V2),
        }
    }

    /// The session id of version 2: the same at both ends, unless somebody sits between them.
    pub fn session_id(&self) -> Option<[u8; 32]> {
        match &self.state {
            State::Encrypted(packets) => Some(packets.session_id()),
            _ => None,
        }
    }

    /// Takes bytes as they came. Then call [`next`](Self::next) until it has nothing.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        match &mut self.state {
            State::Undecided { heard, .. } => heard.extend_from_slice(bytes),
            State::Clear(decoder) => decoder.feed(bytes),
            State::Handshake(handshake) => handshake.feed(bytes),
            State::Encrypted(packets) => packets.feed(bytes),
        }
    }

    /// Bytes of a message or packet that is not whole yet.
    pub fn buffered(&self) -> usize {
        match &self.state {
            State::Clear(decoder) => decoder.buffered(),
            State::Encrypted(packets) => packets.buffered(),
            State::Undecided { .. } | State::Handshake(_) => 0,
        }
    }

    /// The next whole message; nothing when more bytes are needed. After an error it returns the same error again.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<RawMessage>, TransportError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance()?;
        let next = match &mut self.state {
            State::Undecided { .. } | State::Handshake(_) => Ok(None),
            State::Clear(decoder) => decoder.next().map_err(TransportError::from),
            State::Encrypted(packets) => packets.next(),
        };
        next.map_err(|error| self.fail(error))
    }

    /// Queues a message. `command` has at most twelve characters.
    pub fn send(&mut self, command: &str, payload: Vec<u8>) {
        match &mut self.state {
            State::Clear(_) => self
                .outbox
                .push_back(encode_frame(self.magic, command, &payload)),
            State::Encrypted(packets) => self.outbox.extend(packets.seal(command, &payload)),
            State::Undecided { .. } | State::Handshake(_) => {
                if self.waiting.len() < MAX_WAITING {
                    self.waiting.push_back((command.to_owned(), payload));
                }
            }
        }
    }

    /// Queues a packet that says nothing, where packets are encrypted.
    #[cfg(test)]
    pub(crate) fn send_decoy(&mut self, contents: &[u8]) {
        if let State::Encrypted(packets) = &mut self.state {
            self.outbox.extend(packets.seal_decoy(contents));
        }
    }

    /// Takes the oldest bytes that wait to be sent.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.outbox.pop_front()
    }

    /// Goes on with the handshake, as far as the bytes reach.
    fn advance(&mut self) -> Result<(), TransportError> {
        if let State::Undecided { secret, v1, heard } = &mut self.state {
            match decide(heard, self.magic) {
                None => return Ok(()),
                Some(TransportKind::V1) if !*v1 => {
                    return Err(self.fail(TransportError::VersionOne));
                }
                Some(TransportKind::V1) => {
                    let mut decoder = Decoder::new(self.magic);
                    decoder.set_verify_blocks(self.verify_blocks);
                    if let Some((largest, stream_above)) = self.blocks {
                        decoder.set_blocks(largest, stream_above);
                    }
                    decoder.feed(heard);
                    self.state = State::Clear(Box::new(decoder));
                    self.send_waiting();
                }
                Some(TransportKind::V2) => {
                    let mut handshake = Handshake::new(self.magic, false, *secret);
                    handshake.feed(heard);
                    self.state = State::Handshake(handshake);
                }
            }
        }
        if let State::Handshake(handshake) = &mut self.state {
            let advanced = handshake.advance();
            self.outbox.extend(handshake.take_output());
            match advanced {
                Ok(None) => {}
                Ok(Some(packets)) => {
                    self.state = State::Encrypted(Box::new(packets));
                    self.send_waiting();
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    fn send_waiting(&mut self) {
        for (command, payload) in std::mem::take(&mut self.waiting) {
            self.send(&command, payload);
        }
    }

    /// Remembers an error and lets go of all buffers.
    fn fail(&mut self, error: TransportError) -> TransportError {
        if let State::Undecided { heard, .. } = &mut self.state {
            *heard = BytesMut::new();
        }
        if let State::Handshake(handshake) = &mut self.state {
            handshake.abandon();
        }
        if let State::Encrypted(packets) = &mut self.state {
            packets.clear();
        }
        self.waiting.clear();
        self.failed = Some(error);
        error
    }
}

/// Which version the first bytes of a peer begin, as soon as they tell: version 1 begins with the network's magic and
/// `version`, version 2 with a key that does not.
fn decide(heard: &[u8], magic: [u8; 4]) -> Option<TransportKind> {
    let mut prefix = magic.iter().chain(V1_VERSION);
    let same = heard.iter().zip(&mut prefix).all(|(a, b)| a == b);
    match (same, heard.len() < magic.len() + V1_VERSION.len()) {
        (false, _) => Some(TransportKind::V2),
        (true, true) => None,
        (true, false) => Some(TransportKind::V1),
    }
}

#[cfg(test)]
mod tests;
