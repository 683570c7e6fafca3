//! The payloads that we read and write.

use std::net::SocketAddr;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{self, Decodable, Encodable, VarInt};
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{BlockHash, io};
use bytes::Bytes;

use super::codec::{
    Command, MAX_ADDRESSES, MAX_HEADERS_RESULTS, MAX_INVENTORY, RawMessage, encode_frame,
};

mod addr_v2;

/// The protocol version that we speak: with BIP339 (`wtxidrelay`) and BIP155 (`sendaddrv2`).
pub const PROTOCOL_VERSION: u32 = 70_016;
/// The longest user agent that is taken (Core's `MAX_SUBVERSION_LENGTH`).
pub const MAX_USER_AGENT: usize = 256;
/// The most hashes in a locator (Core's `MAX_LOCATOR_SZ`).
pub const MAX_LOCATOR: usize = 101;

/// What a peer says about itself, and we about us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Protocol version.
    pub version: u32,
    /// What the sender offers.
    pub services: ServiceFlags,
    /// The sender's clock, unix seconds.
    pub timestamp: i64,
    /// The receiver as the sender sees it.
    pub receiver: Address,
    /// The sender as it sees itself.
    pub sender: Address,
    /// Random; tells a connection to oneself.
    pub nonce: u64,
    /// The software, BIP14. As sent: not fit to be shown.
    pub user_agent: Vec<u8>,
    /// Height of the sender's chain.
    pub start_height: i32,
    /// Whether transactions may be announced to the sender (BIP37).
    pub relay: bool,
}

/// A message, decoded as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `version`
    Version(Box<Version>),
    /// `verack`
    Verack,
    /// `wtxidrelay`, BIP339
    WtxidRelay,
    /// `sendaddrv2`, BIP155
    SendAddrV2,
    /// `sendheaders`, BIP130
    SendHeaders,
    /// `ping` with its nonce
    Ping(u64),
    /// `pong` with the ping's nonce
    Pong(u64),
    /// `feefilter`, in sat/kvB, BIP133
    FeeFilter(u64),
    /// `protoconf`, Bitcoin SV: the longest message that the sender takes, blocks aside
    Protoconf(u32),
    /// `getaddr`
    GetAddr,
    /// `addr`: unix time last seen, address
    Addr(Vec<(u32, Address)>),
    /// `addrv2`, BIP155. What is to be passed over, of a known network too, is [`AddrV2::Unknown`](bitcoin::p2p::address::AddrV2).
    AddrV2(Vec<AddrV2Message>),
    /// `inv`
    Inv(Vec<Inventory>),
    /// `getdata`
    GetData(Vec<Inventory>),
    /// `notfound`
    NotFound(Vec<Inventory>),
    /// `getheaders`
    GetHeaders(Locator),
    /// `getblocks`
    GetBlocks(Locator),
    /// `headers`
    Headers(Vec<Header>),
    /// `block`, serialised: a piece of the buffer it arrived in
    Block(Bytes),
    /// `tx`, serialised: a piece of the buffer it arrived in
    Tx(Bytes),
    /// `sendcmpct`, BIP152
    SendCmpct {
        /// Whether new blocks are to be sent unasked.
        announce: bool,
        /// Which kind: 2 hashes wtxids.
        version: u64,
    },
    /// `cmpctblock`, BIP152
    CmpctBlock(Box<HeaderAndShortIds>),
    /// `getblocktxn`, BIP152
    GetBlockTxn(Box<BlockTransactionsRequest>),
    /// `blocktxn`, BIP152
    BlockTxn(Box<BlockTransactions>),
    /// `mempool`, BIP35
    MemPool,
    /// Something that we do not use.
    Unknown(Command),
}

/// What a peer has, and up to where it wants more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Hashes from its tip back.
    pub hashes: Vec<BlockHash>,
    /// The last hash wanted; zero for as many as fit.
    pub stop: BlockHash,
}

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The bytes end early or hold what may not be there.
    #[error("malformed {command}: {error}")]
    Malformed {
        /// The message's name.
        command: Command,
        /// What the decoder says.
        error: encode::Error,
    },
    /// Bytes are left over.
    #[error("{left} bytes left over in {command}")]
    LeftOver {
        /// The message's name.
        command: Command,
        /// How many.
        left: usize,
    },
    /// A list is longer than the protocol allows.
    #[error("{count} entries in {command}, at most {limit}")]
    TooMany {
        /// The message's name.
        command: Command,
        /// Entries announced.
        count: u64,
        /// Entries allowed.
        limit: usize,
    },
}

/// The unread rest of a payload.
struct Payload<'a> {
    command: Command,
    bytes: &'a [u8],
}

impl Payload<'_> {
    fn read<T: Decodable>(&mut self) -> Result<T, PayloadError> {
        T::consensus_decode(&mut self.bytes).map_err(|error| PayloadError::Malformed {
            command: self.command,
            error,
        })
    }

    fn count(&mut self, limit: usize) -> Result<usize, PayloadError> {
        let count = self.read::<VarInt>()?.0;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= limit)
            .ok_or(PayloadError::TooMany {
                command: self.command,
                count,
                limit,
            })
    }

    /// A list with its length before it. The bytes at hand bound what is allocated, not the announced length.
    fn list<T: Decodable>(&mut self, limit: usize) -> Result<Vec<T>, PayloadError> {
        let count = self.count(limit)?;
        let mut list = Vec::with_capacity(count.min(self.bytes.len() / 6 + 1));
        for _ in 0..count {
            list.push(self.read()?);
        }
        Ok(list)
    }

    fn end(&self) -> Result<(), PayloadError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(PayloadError::LeftOver {
                command: self.command,
                left,
            }),
        }
    }
}

impl Message {
    /// Reads the payload. Blocks and transactions stay as they are.
    pub fn read(raw: RawMessage) -> Result<Message, PayloadError> {
        let command = raw.command;
        let mut payload = Payload {
            command,
            bytes: &raw.payload,
        };
        let message = match command.as_str() {
            "block" => return Ok(Message::Block(raw.payload)),
            "tx" => return Ok(Message::Tx(raw.payload)),
            // Later versions add to it: what is left over is not ours to refuse.
            "version" => {
                return read_version(&mut payload)
                    .map(|version| Message::Version(Box::new(version)));
            }
            "verack" => return Ok(Message::Verack),
            "wtxidrelay" => return Ok(Message::WtxidRelay),
            "sendaddrv2" => return Ok(Message::SendAddrV2),
            "sendheaders" => return Ok(Message::SendHeaders),
            "getaddr" => return Ok(Message::GetAddr),
            "mempool" => return Ok(Message::MemPool),
            "ping" if raw.payload.is_empty() => return Ok(Message::Unknown(command)),
            "ping" => Message::Ping(payload.read()?),
            "pong" => Message::Pong(payload.read()?),
            "feefilter" => Message::FeeFilter(payload.read()?),
            // Later versions add to it.
            "protoconf" => {
                return match payload.read::<VarInt>()?.0 {
                    0 => Ok(Message::Unknown(command)),
                    _ => payload.read().map(Message::Protoconf),
                };
            }
            "addr" => Message::Addr(payload.list(MAX_ADDRESSES)?),
            "addrv2" => Message::AddrV2(addr_v2::read_list(&mut payload)?),
            "inv" => Message::Inv(payload.list(MAX_INVENTORY)?),
            "getdata" => Message::GetData(payload.list(MAX_INVENTORY)?),
            "notfound" => Message::NotFound(payload.list(MAX_INVENTORY)?),
            "getheaders" => Message::GetHeaders(read_locator(&mut payload)?),
            "getblocks" => Message::GetBlocks(read_locator(&mut payload)?),
            "sendcmpct" => Message::SendCmpct {
                announce: payload.read::<u8>()? != 0,
                version: payload.read()?,
            },
            "cmpctblock" => Message::CmpctBlock(Box::new(payload.read()?)),
            "getblocktxn" => Message::GetBlockTxn(Box::new(payload.read()?)),
            "blocktxn" => Message::BlockTxn(Box::new(payload.read()?)),
            "headers" => Message::Headers(read_headers(&mut payload)?),
            _ => return Ok(Message::Unknown(command)),
        };
        payload.end()?;
        Ok(message)
    }

    /// The message's name on the wire.
    pub fn command(&self) -> &str {
        match self {
            Message::Version(_) => "version",
            Message::Verack => "verack",
            Message::WtxidRelay => "wtxidrelay",
            Message::SendAddrV2 => "sendaddrv2",
            Message::SendHeaders => "sendheaders",
            Message::Ping(_) => "ping",
            Message::Pong(_) => "pong",
            Message::FeeFilter(_) => "feefilter",
            Message::Protoconf(_) => "protoconf",
            Message::GetAddr => "getaddr",
            Message::Addr(_) => "addr",
            Message::AddrV2(_) => "addrv2",
            Message::Inv(_) => "inv",
            Message::GetData(_) => "getdata",
            Message::NotFound(_) => "notfound",
            Message::GetHeaders(_) => "getheaders",
            Message::GetBlocks(_) => "getblocks",
            Message::Headers(_) => "headers",
            Message::Block(_) => "block",
            Message::Tx(_) => "tx",
            Message::SendCmpct { .. } => "sendcmpct",
            Message::CmpctBlock(_) => "cmpctblock",
            Message::GetBlockTxn(_) => "getblocktxn",
            Message::BlockTxn(_) => "blocktxn",
            Message::MemPool => "mempool",
            Message::Unknown(command) => command.as_str(),
        }
    }

    /// The message's name and how much is in it, for logs.
    pub fn summary(&self) -> String {
        let command = self.command();
        match self {
            Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => {
                match list.first() {
                    Some(first) if list.len() == 1 => format!("{command} {}", describe(first)),
                    Some(first) => format!("{command} {} from {}", list.len(), describe(first)),
                    None => format!("{command} 0"),
                }
            }
            Message::Headers(headers) => match headers.last() {
                Some(last) => format!("{command} {} to {}", headers.len(), last.block_hash()),
                None => format!("{command} 0"),
            },
            Message::GetHeaders(locator) | Message::GetBlocks(locator) => {
                match locator.hashes.first() {
                    Some(first) => format!("{command} from {first}"),
                    None => command.to_owned(),
                }
            }
            Message::Block(raw) | Message::Tx(raw) => format!("{command} {} bytes", raw.len()),
            Message::CmpctBlock(block) => format!(
                "{command} {} with {} short ids",
                block.header.block_hash(),
                block.short_ids.len()
            ),
            Message::GetBlockTxn(request) => {
                format!(
                    "{command} {} of {}",
                    request.indexes.len(),
                    request.block_hash
                )
            }
            Message::BlockTxn(answer) => {
                format!(
                    "{command} {} of {}",
                    answer.transactions.len(),
                    answer.block_hash
                )
            }
            Message::Addr(list) => format!("{command} {}", list.len()),
            Message::AddrV2(list) => format!("{command} {}", list.len()),
            _ => command.to_owned(),
        }
    }

    /// The message as bytes on the wire of the network with this magic.
    pub fn encode(&self, magic: [u8; 4]) -> Bytes {
        encode_frame(magic, self.command(), &self.payload())
    }

    /// What comes after the name.
    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Message::Version(version) => write_version(&mut bytes, version),
            Message::Ping(nonce) | Message::Pong(nonce) => write(&mut bytes, nonce),
            Message::FeeFilter(rate) => write(&mut bytes, rate),
            Message::Protoconf(length) => {
                // The number of fields that follow.
                write(&mut bytes, &VarInt(1));
                write(&mut bytes, length);
            }
            Message::Addr(list) => write_list(&mut bytes, list),
            Message::AddrV2(list) => write_list(&mut bytes, list),
            Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => {
                write_list(&mut bytes, list)
            }
            Message::GetHeaders(locator) | Message::GetBlocks(locator) => {
                write(&mut bytes, &PROTOCOL_VERSION);
                write_list(&mut bytes, &locator.hashes);
                write(&mut bytes, &locator.stop);
            }
            Message::Headers(headers) => {
                write(&mut bytes, &VarInt::from(headers.len()));
                for header in headers {
                    write(&mut bytes, header);
                    bytes.push(0);
                }
            }
            Message::SendCmpct { announce, version } => {
                bytes.push(u8::from(*announce));
                write(&mut bytes, version);
            }
            Message::CmpctBlock(block) => write(&mut bytes, block.as_ref()),
            Message::GetBlockTxn(request) => write(&mut bytes, request.as_ref()),
            Message::BlockTxn(answer) => write(&mut bytes, answer.as_ref()),
            Message::Block(raw) | Message::Tx(raw) => bytes.extend_from_slice(raw),
            Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::GetAddr
            | Message::MemPool
            | Message::Unknown(_) => {}
        }
        bytes
    }
}

impl Locator {
    /// A locator that asks for as much as fits in an answer.
    pub fn from_hashes(hashes: Vec<BlockHash>) -> Locator {
        Locator {
            hashes,
            stop: BlockHash::all_zeros(),
        }
    }
}

fn describe(item: &Inventory) -> String {
    match item {
        Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => format!("tx {txid}"),
        Inventory::WTx(wtxid) => format!("wtx {wtxid}"),
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            format!("block {hash}")
        }
        Inventory::Error => "error".to_owned(),
        Inventory::Unknown { inv_type, .. } => format!("type {inv_type}"),
    }
}

/// Writing to memory cannot fail.
fn write(bytes: &mut Vec<u8>, value: &impl Encodable) {
    let written: Result<usize, io::Error> = value.consensus_encode(bytes);
    debug_assert!(written.is_ok());
}

fn write_list<T: Encodable>(bytes: &mut Vec<u8>, list: &[T]) {
    write(bytes, &VarInt::from(list.len()));
    for entry in list {
        write(bytes, entry);
    }
}

fn read_locator(payload: &mut Payload<'_>) -> Result<Locator, PayloadError> {
    let _version: u32 = payload.read()?;
    Ok(Locator {
        hashes: payload.list(MAX_LOCATOR)?,
        stop: payload.read()?,
    })
}

fn read_headers(payload: &mut Payload<'_>) -> Result<Vec<Header>, PayloadError> {
    let count = payload.count(MAX_HEADERS_RESULTS)?;
    let mut headers = Vec::with_capacity(count.min(payload.bytes.len() / 81 + 1));
    for _ in 0..count {
        headers.push(payload.read()?);
        // The transaction count, always zero here.
        let _: VarInt = payload.read()?;
    }
    Ok(headers)
}

fn read_version(payload: &mut Payload<'_>) -> Result<Version, PayloadError> {
    let (version, services, timestamp) = (payload.read()?, payload.read()?, payload.read()?);
    let (receiver, sender, nonce) = (payload.read()?, payload.read()?, payload.read()?);
    let length = payload.count(MAX_USER_AGENT)?;
    let mut user_agent = Vec::with_capacity(length);
    for _ in 0..length {
        user_agent.push(payload.read::<u8>()?);
    }
    let start_height = payload.read()?;
    // Missing before BIP37, where it counts as true.
    let relay = if payload.bytes.is_empty() {
        true
    } else {
        payload.read::<u8>()? != 0
    };
    Ok(Version {
        version,
        services,
        timestamp,
        receiver,
        sender,
        nonce,
        user_agent,
        start_height,
        relay,
    })
}

fn write_version(bytes: &mut Vec<u8>, version: &Version) {
    write(bytes, &version.version);
    write(bytes, &version.services);
    write(bytes, &version.timestamp);
    write(bytes, &version.receiver);
    write(bytes, &version.sender);
    write(bytes, &version.nonce);
    write(bytes, &VarInt::from(version.user_agent.len()));
    bytes.extend_from_slice(&version.user_agent);
    write(bytes, &version.start_height);
    bytes.push(u8::from(version.relay));
}

/// An address for a `version` message; nobody reads it.
pub fn unspecified(services: ServiceFlags) -> Address {
    Address::new(&SocketAddr::from(([0, 0, 0, 0], 0)), services)
}

#[cfg(test)]
mod tests;
