//! The book on the disk: a line of JSON for each record, ban and anchor, between a first line that says what it is and a
//! last one with the CRC32 of all before.

use std::net::SocketAddr;

use bitcoin::p2p::ServiceFlags;
use serde::{Deserialize, Serialize};

use super::{Book, Group, NetAddress, Place, Record};
use crate::chain::sync::bans::{Ban, Bans, Subnet};
use crate::wire::TransportKind;

/// The first word of the file.
const FORMAT: &str = "blockmill peers";
/// The version of what follows.
const VERSION: u32 = 1;
/// The most bytes that are read: a full book takes a quarter of it.
pub const MAX_FILE: u64 = 64 << 20;
/// The most anchors.
const MAX_ANCHORS: usize = 8;

/// What is kept over a restart.
#[derive(Debug)]
pub struct BookFile {
    /// The book.
    pub book: Book,
    /// The bans.
    pub bans: Bans,
    /// The peers that are connected to first.
    pub anchors: Vec<NetAddress>,
}

/// Why a file is no peer book of ours.
#[derive(Debug, thiserror::Error)]
pub enum BookFileError {
    /// It does not begin or end as one.
    #[error("it is no peer book, or torn")]
    NoBook,
    /// It is of a version that we do not know.
    #[error("it is of version {0}")]
    Version(u32),
    /// It is of another network.
    #[error("it is of the network {0}")]
    OtherNetwork(String),
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// A line cannot be read.
    #[error("line {0} cannot be read")]
    Line(usize),
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    network: String,
    key: [u64; 2],
}

#[derive(Serialize, Deserialize)]
struct End {
    crc32: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Peer(PeerLine),
    Ban(BanLine),
    Anchor(String),
}

/// Times are unix seconds; what is nought or nothing is left out.
#[derive(Serialize, Deserialize)]
struct PeerLine {
    addr: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    services: u64,
    source: String,
    seen: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    tried: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    good: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transport: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dropped: Option<(u64, String)>,
    table: Table,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Table {
    New,
    Tried,
    Pinned,
}

#[derive(Serialize, Deserialize)]
struct BanLine {
    subnet: String,
    since: u64,
    until: Option<u64>,
    offences: u32,
    by_operator: bool,
    reason: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl BookFile {
    /// The bytes of the file.
    pub fn encode(network: &str, book: &Book, bans: &Bans, anchors: &[NetAddress]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            network: network.to_owned(),
            key: book.key,
        };
        push(&mut bytes, &head);
        for record in book.records() {
            push(&mut bytes, &Line::Peer(peer_line(record)));
        }
        for (subnet, ban) in bans.all() {
            let line = BanLine {
                subnet: subnet.to_string(),
                since: ban.since,
                until: ban.until,
                offences: ban.offences,
                by_operator: ban.by_operator,
                reason: ban.reason.clone(),
            };
            push(&mut bytes, &Line::Ban(line));
        }
        for anchor in anchors.iter().take(MAX_ANCHORS) {
            push(&mut bytes, &Line::Anchor(anchor.to_string()));
        }
        let crc32 = crc32fast::hash(&bytes);
        push(&mut bytes, &End { crc32 });
        bytes
    }

    /// Reads what was written for this network.
    ///
    /// # Errors
    ///
    /// When it was not written so: nothing of it is taken then.
    pub fn decode(network: &str, bytes: &[u8]) -> Result<BookFile, BookFileError> {
        let whole = bytes.strip_suffix(b"\n").ok_or(BookFileError::NoBook)?;
        let first_end = whole.iter().position(|byte| *byte == b'\n');
        let first = first_end.and_then(|end| whole.get(..end));
        let head: Head = first
            .and_then(|line| serde_json::from_slice(line).ok())
            .ok_or(BookFileError::NoBook)?;
        if head.format != FORMAT {
            return Err(BookFileError::NoBook);
        }
        if head.version != VERSION {
            return Err(BookFileError::Version(head.version));
        }
        let last = whole.iter().rposition(|byte| *byte == b'\n');
        let (body, end) = last
            .and_then(|at| bytes.split_at_checked(at + 1))
            .ok_or(BookFileError::NoBook)?;
        let end: End = serde_json::from_slice(end).map_err(|_| BookFileError::NoBook)?;
        if end.crc32 != crc32fast::hash(body) {
            return Err(BookFileError::Checksum);
        }
        if head.network != network {
            return Err(BookFileError::OtherNetwork(head.network));
        }
        let (mut book, mut bans, mut anchors) = (Book::new(head.key), Vec::new(), Vec::new());
        for (number, line) in body.split(|byte| *byte == b'\n').enumerate().skip(1) {
            if line.is_empty() {
                continue;
            }
            let wrong = || BookFileError::Line(number + 1);
            match serde_json::from_slice(line).map_err(|_| wrong())? {
                Line::Peer(line) => {
                    let (record, table) = record(line).ok_or_else(wrong)?;
                    book.restore(record, table);
                }
                Line::Ban(line) => bans.push(ban(line).ok_or_else(wrong)?),
                Line::Anchor(text) if anchors.len() < MAX_ANCHORS => {
                    anchors.push(text.parse().map_err(|_| wrong())?);
                }
                Line::Anchor(_) => {}
            }
        }
        Ok(BookFile {
            book,
            bans: Bans::restore(bans),
            anchors,
        })
    }
}

impl Book {
    /// Puts a record back. Its place follows from the secret; where two want the same, the first stays.
    fn restore(&mut self, mut record: Record, table: Table) {
        let handle: SocketAddr = record.address.handle();
        if self.records.contains_key(&handle) {
            return;
        }
        record.place = match table {
            Table::New => {
                let place = self.new_place(&record.address, record.source);
                if self.new.contains_key(&place) {
                    return;
                }
                self.new.insert(place, handle);
                Place::New(place)
            }
            Table::Tried => {
                let place = self.tried_place(&record.address);
                if self.tried.contains_key(&place) {
                    return;
                }
                self.tried.insert(place, handle);
                Place::Tried(place)
            }
            Table::Pinned => Place::Pinned,
        };
        self.records.insert(handle, record);
    }
}

fn push(bytes: &mut Vec<u8>, line: &impl Serialize) {
    // Writing plain structures to memory cannot fail.
    let written = serde_json::to_writer(&mut *bytes, line);
    debug_assert!(written.is_ok());
    bytes.push(b'\n');
}

fn peer_line(record: &Record) -> PeerLine {
    PeerLine {
        addr: record.address.to_string(),
        services: record.services.to_u64(),
        source: record.source.to_string(),
        seen: record.seen,
        tried: record.tried,
        good: record.good,
        failures: record.failures.into(),
        transport: record
            .transport
            .map(|transport| transport.name().to_owned()),
        dropped: record.dropped.clone(),
        table: match record.place {
            Place::New(_) => Table::New,
            Place::Tried(_) => Table::Tried,
            Place::Pinned => Table::Pinned,
        },
    }
}

fn record(line: PeerLine) -> Option<(Record, Table)> {
    let transport = match &line.transport {
        Some(name) => Some(TransportKind::parse(name)?),
        None => None,
    };
    let record = Record {
        tried: line.tried,
        good: line.good,
        failures: u32::try_from(line.failures).ok()?,
        transport,
        dropped: line.dropped,
        ..Record::new(
            line.addr.parse().ok()?,
            ServiceFlags::from(line.services),
            Group::parse(&line.source)?,
            line.seen,
        )
    };
    Some((record, line.table))
}

fn ban(line: BanLine) -> Option<(Subnet, Ban)> {
    let ban = Ban {
        since: line.since,
        until: line.until,
        offences: line.offences,
        by_operator: line.by_operator,
        reason: line.reason,
    };
    Some((line.subnet.parse().ok()?, ban))
}
