//! The packets of version 2 after the handshake: encrypted length (3 bytes), then a byte of flags, the contents and a
//! tag. The contents are a message's name, of one byte or of thirteen, and its payload.

use std::fmt;

use bip324::{CipherSession, InboundCipher, OutboundCipher, PacketType};
use bytes::{Buf, Bytes, BytesMut};

use super::TransportError;
use super::short_id;
use crate::wire::codec::{Command, MAX_PAYLOAD, RawMessage, WireError, payload_limit};

/// Bytes of a long name: a zero, and the command padded with zeros.
const LONG_NAME: usize = 13;
/// The longest contents: those of the longest message with a long name, as in Core.
pub const MAX_CONTENTS: usize = LONG_NAME + MAX_PAYLOAD;
/// Bytes of an encrypted length.
const LENGTH: usize = 3;
/// The byte before the contents.
const FLAGS: usize = 1;
/// The bytes after them.
const TAG: usize = 16;
/// The longest packet after its length.
pub(super) const MAX_PACKET: usize = FLAGS + MAX_CONTENTS + TAG;
/// The flag of a packet that says nothing.
const DECOY: u8 = 0x80;

/// Both directions of an encrypted connection.
pub(super) struct Packets {
    inbound: InboundCipher,
    outbound: OutboundCipher,
    session_id: [u8; 32],
    buffer: BytesMut,
    /// The length of the packet that is under way, after its length was read.
    packet: Option<usize>,
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets")
            .field("buffered", &self.buffer.len())
            .field("packet", &self.packet)
            .finish_non_exhaustive()
    }
}

impl Packets {
    /// The packets of a session, beginning with `buffer`.
    pub(super) fn new(session: CipherSession, buffer: BytesMut) -> Packets {
        let session_id = *session.id();
        let (inbound, outbound) = session.into_split();
        Packets {
            inbound,
            outbound,
            session_id,
            buffer,
            packet: None,
        }
    }

    pub(super) fn session_id(&self) -> [u8; 32] {
        self.session_id
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// The next message that is no decoy and has a name that we can know.
    pub(super) fn next(&mut self) -> Result<Option<RawMessage>, TransportError> {
        loop {
            let Some(contents) = self.next_packet()? else {
                return Ok(None);
            };
            if let Some(message) = contents.map(open).transpose()?.flatten() {
                return Ok(Some(message));
            }
        }
    }

    /// The contents of the next packet: nothing inside for a decoy, nothing at all when more bytes are needed.
    fn next_packet(&mut self) -> Result<Option<Option<Bytes>>, TransportError> {
        let length = match self.packet {
            Some(length) => length,
            None => {
                let Some(encrypted) = self.buffer.first_chunk::<LENGTH>().copied() else {
                    return Ok(None);
                };
                self.buffer.advance(LENGTH);
                let length = self.inbound.decrypt_packet_len(encrypted);
                if length > MAX_PACKET {
                    return Err(TransportError::PacketTooLong {
                        length,
                        limit: MAX_PACKET,
                    });
                }
                self.packet = Some(length);
                length
            }
        };
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        self.packet = None;
        let mut packet = self.buffer.split_to(length);
        self.inbound
            .decrypt_in_place(&mut packet, None)
            .map_err(|_| TransportError::Decrypt)?;
        packet.truncate(length.saturating_sub(TAG));
        // Of the flags only this one means something; the others are to be passed over, so the crate's reading of the
        // whole byte is not used.
        let decoy = packet.first().is_some_and(|flags| flags & DECOY != 0);
        packet.advance(FLAGS.min(packet.len()));
        Ok(Some((!decoy).then(|| packet.freeze())))
    }

    /// A message as a packet. Nothing, if it is longer than a packet may be, which none of ours is.
    pub(super) fn seal(&mut self, command: &str, payload: &[u8]) -> Option<Bytes> {
        let mut contents = Vec::with_capacity(LONG_NAME + payload.len());
        match short_id::id(command) {
            Some(id) => contents.push(id),
            None => {
                contents.resize(LONG_NAME, 0);
                let name = contents.iter_mut().skip(1).zip(command.bytes());
                name.for_each(|(slot, byte)| *slot = byte);
            }
        }
        contents.extend_from_slice(payload);
        self.encrypt(&contents, PacketType::Genuine)
    }

    /// A packet that says nothing. We send none.
    #[cfg(test)]
    pub(super) fn seal_decoy(&mut self, contents: &[u8]) -> Option<Bytes> {
        self.encrypt(contents, PacketType::Decoy)
    }

    fn encrypt(&mut self, contents: &[u8], kind: PacketType) -> Option<Bytes> {
        if contents.len() > MAX_CONTENTS {
            return None;
        }
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.outbound
            .encrypt(contents, &mut packet, kind, None)
            .ok()?;
        Some(packet.into())
    }
}

/// The message in a packet. Nothing for no contents and for short ids that mean nothing yet: both are passed over, as
/// Core does.
fn open(mut contents: Bytes) -> Result<Option<RawMessage>, TransportError> {
    let padded = match contents.first() {
        None => return Ok(None),
        Some(0) => {
            let Some(name) = contents.get(1..).and_then(|rest| rest.first_chunk::<12>()) else {
                return Ok(None);
            };
            let name = *name;
            contents.advance(LONG_NAME);
            name
        }
        Some(id) => {
            let Some(name) = short_id::name(*id) else {
                return Ok(None);
            };
            contents.advance(1);
            let mut padded = [0; 12];
            let slots = padded.iter_mut().zip(name.bytes());
            slots.for_each(|(slot, byte)| *slot = byte);
            padded
        }
    };
    let command = Command::from_padded(padded).ok_or(WireError::Command(padded))?;
    let (length, limit) = (contents.len(), payload_limit(command.as_str()));
    if length > limit {
        return Err(WireError::TooLong {
            command,
            length,
            limit,
        }
        .into());
    }
    Ok(Some(RawMessage {
        command,
        payload: contents,
    }))
}
