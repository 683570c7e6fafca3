//! Version 2 of the transport (BIP324), straight on the `bip324` crate and on blocking sockets: what the host's own is
//! tested against. Decoys and garbage are sent on purpose.

use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bip324::{
    CipherSession, FillBytes, GarbageResult, Handshake, InboundCipher, Initialized, OutboundCipher,
    PacketType, ReceivedKey, Role, VersionResult,
};
use bitcoin::consensus::deserialize;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::Magic;
use bitcoin::p2p::message::{CommandString, NetworkMessage, RawNetworkMessage};
use bitcoin::secp256k1::Secp256k1;

use super::frame::{self, HEAD_LEN, MAX_PAYLOAD};

/// What the first message of version 1 begins with, after the magic.
pub const V1_VERSION: &[u8; 12] = b"version\0\0\0\0\0";
/// Every so many packets one comes before that says nothing.
const DECOY_INTERVAL: u64 = 32;
/// The one-byte names, in order from 1.
const NAMES: &str = "addr block blocktxn cmpctblock feefilter filteradd filterclear filterload getblocks getblocktxn \
                     getdata getheaders headers inv mempool merkleblock notfound ping pong sendcmpct tx getcfilters \
                     cfilters getcfheaders cfheaders getcfcheckpt cfcheckpt addrv2";

struct Random;

impl FillBytes for Random {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = rand::random();
    }
}

/// A handshake from the first byte to the last.
///
/// # Errors
/// When the other side goes, or does not know how.
pub fn shake_hands(
    from: &mut impl Read,
    mut to: impl Write,
    magic: Magic,
    role: Role,
) -> Result<CipherSession> {
    let garbage = vec![rand::random::<u8>(); usize::from(rand::random::<u8>())];
    let curve = Secp256k1::signing_only();
    let handshake =
        Handshake::new_with_rng(magic.to_bytes(), role, &mut Random, &curve).map_err(failed)?;
    let mut ours = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake
        .send_key(Some(&garbage), &mut ours)
        .map_err(failed)?;
    to.write_all(&ours)?;
    let handshake = handshake.receive_key(read(from)?).map_err(failed)?;
    let decoys: [&[u8]; 2] = [b"a decoy", b""];
    let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(Some(&decoys))];
    let mut handshake = handshake
        .send_version(&mut version, Some(&decoys))
        .map_err(failed)?;
    to.write_all(&version)?;

    let mut heard = Vec::new();
    let mut handshake = loop {
        match handshake.receive_garbage(&heard).map_err(failed)? {
            GarbageResult::FoundGarbage { handshake, .. } => break handshake,
            GarbageResult::NeedMoreData(again) => handshake = again,
        }
        heard.extend(read::<1>(from)?);
    };
    loop {
        let length = handshake.decrypt_packet_len(read(from)?).map_err(failed)?;
        let mut packet = read_long(from, length)?;
        match handshake.receive_version(&mut packet).map_err(failed)? {
            VersionResult::Complete { cipher } => return Ok(cipher),
            VersionResult::Decoy(again) => handshake = again,
        }
    }
}

/// Without its standard library the crate's errors are none of the standard library's.
fn failed(error: bip324::Error) -> anyhow::Error {
    anyhow!("{error}")
}

fn read<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_long(from: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    ensure!(length <= MAX_PAYLOAD + 30, "packet of {length} bytes");
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads one message. `None` when the other side has gone.
///
/// # Errors
/// When a packet is not what was sent, or its contents are no message.
pub fn read_message(
    from: &mut impl Read,
    cipher: &mut InboundCipher,
    magic: Magic,
) -> Result<Option<NetworkMessage>> {
    loop {
        let Ok(length) = read(from) else {
            return Ok(None);
        };
        let mut packet = read_long(from, cipher.decrypt_packet_len(length))?;
        let (kind, contents) = cipher.decrypt_in_place(&mut packet, None).map_err(failed)?;
        let contents = contents.get(1..).context("empty packet")?;
        if kind == PacketType::Decoy {
            continue;
        }
        let (name, payload) = match contents.split_first() {
            Some((0, rest)) => rest.split_at_checked(12).context("short name")?,
            Some((id, rest)) => {
                let index = usize::from(*id) - 1;
                let name = NAMES.split(' ').nth(index).context("unknown name")?;
                (name.as_bytes(), rest)
            }
            None => bail!("no contents"),
        };
        // The library reads messages in frames of version 1 only.
        let name = std::str::from_utf8(name)?.trim_end_matches('\0');
        let command = CommandString::try_from(name.to_owned())?;
        let mut message = magic.to_bytes().to_vec();
        message.extend(serialize(&command));
        message.extend(u32::try_from(payload.len())?.to_le_bytes());
        message.extend(sha256d::Hash::hash(payload).to_byte_array().iter().take(4));
        message.extend(payload);
        let message: RawNetworkMessage = deserialize(&message).context("cannot decode message")?;
        return Ok(Some(message.into_payload()));
    }
}

/// The sending half, which takes frames of version 1 apart.
pub struct Sealer {
    cipher: OutboundCipher,
    magic: Magic,
    packets: u64,
}

impl Sealer {
    pub fn new(cipher: OutboundCipher, magic: Magic) -> Self {
        Self {
            cipher,
            magic,
            packets: 0,
        }
    }

    /// A frame's head and payload as a packet, and now and then a decoy before it. What is wrong with the head becomes
    /// a wrong tag, and a wrong length a wrong length.
    pub fn seal(&mut self, head: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.packets += 1;
        if self.packets.is_multiple_of(DECOY_INTERVAL) {
            bytes = self.packet(&[0xaa; 50], PacketType::Decoy);
        }
        let name = head.get(4..16).unwrap_or_default();
        let text = std::str::from_utf8(name).unwrap_or_default();
        let mut names = NAMES.split(' ');
        let id = names.position(|known| known == text.trim_end_matches('\0'));
        let mut contents = match id.and_then(|index| u8::try_from(index + 1).ok()) {
            Some(id) => vec![id],
            None => [&[0], name].concat(),
        };
        contents.extend(payload);
        let at = bytes.len();
        bytes.extend(self.packet(&contents, PacketType::Genuine));
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if head.get(16..20) != Some(&length.to_le_bytes()) {
            // The highest byte of the length: it announces megabytes more.
            flip(bytes.get_mut(at + 2));
        } else if head.get(..4) != Some(&self.magic.to_bytes())
            || head.get(20..HEAD_LEN) != Some(&frame::checksum(payload))
        {
            flip(bytes.last_mut());
        }
        bytes
    }

    fn packet(&mut self, contents: &[u8], kind: PacketType) -> Vec<u8> {
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        // Fails for a buffer that is too small only.
        let _ = self.cipher.encrypt(contents, &mut packet, kind, None);
        packet
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

fn flip(byte: Option<&mut u8>) {
    if let Some(byte) = byte {
        *byte ^= 0xc0;
    }
}
