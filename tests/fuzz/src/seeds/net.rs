//! What comes over a connection.

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, Txid, Wtxid};
use blockmill::wire::message::{Locator, unspecified};
use blockmill::wire::{Message, Version};

use super::{Seed, blocks, chunk, seed, small_block, transactions};
use crate::shapes::MAGIC;
use crate::targets::COMMANDS;

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    payloads(&mut seeds);
    frames(&mut seeds);
    transports(&mut seeds);
    block(&mut seeds);
    headers(&mut seeds);
    sync(&mut seeds);
    pool(&mut seeds);
    socks(&mut seeds);
    http(&mut seeds);
    seeds
}

/// One of each kind.
fn messages() -> Vec<Message> {
    let (_, raw) = small_block();
    let block: Block = deserialize(&raw).expect("a block");
    let (header, hash) = (block.header, block.block_hash());
    let compact = HeaderAndShortIds::from_block(&block, 7, 2, &[1]).expect("a compact block");
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let address = Address::new(&([192, 0, 2, 7], 8_333).into(), services);
    let address_2 = |addr| AddrV2Message {
        time: 1_700_000_000,
        services,
        addr,
        port: 8_333,
    };
    vec![
        Message::Version(Box::new(Version {
            version: 70_016,
            services,
            timestamp: 1_700_000_000,
            receiver: unspecified(ServiceFlags::NONE),
            sender: unspecified(services),
            nonce: 7,
            user_agent: b"/Satoshi:28.0.0/".to_vec(),
            start_height: 800_000,
            relay: true,
        })),
        Message::Verack,
        Message::WtxidRelay,
        Message::SendAddrV2,
        Message::SendHeaders,
        Message::Ping(7),
        Message::Pong(7),
        Message::FeeFilter(1_000),
        Message::Protoconf(2 << 20),
        Message::GetAddr,
        Message::Addr(vec![(1_700_000_000, address)]),
        Message::AddrV2(vec![
            address_2(AddrV2::Ipv4([192, 0, 2, 7].into())),
            address_2(AddrV2::Ipv6("2001:db8::7".parse().expect("an address"))),
            address_2(AddrV2::TorV3([7; 32])),
            address_2(AddrV2::I2p([8; 32])),
            address_2(AddrV2::Unknown(99, vec![1, 2, 3])),
        ]),
        Message::Inv(vec![
            Inventory::WTx(Wtxid::from_byte_array([1; 32])),
            Inventory::Transaction(Txid::from_byte_array([2; 32])),
            Inventory::Block(hash),
        ]),
        Message::GetData(vec![
            Inventory::WitnessBlock(hash),
            Inventory::CompactBlock(hash),
        ]),
        Message::NotFound(vec![Inventory::WitnessTransaction(Txid::from_byte_array(
            [3; 32],
        ))]),
        Message::GetHeaders(Locator::from_hashes(vec![hash, header.prev_blockhash])),
        Message::GetBlocks(Locator::from_hashes(vec![hash])),
        Message::Headers(vec![header, header]),
        Message::Block(raw.into()),
        Message::Tx(serialize(&block.txdata[1]).into()),
        Message::SendCmpct {
            announce: false,
            version: 2,
        },
        Message::CmpctBlock(Box::new(compact)),
        Message::GetBlockTxn(Box::new(BlockTransactionsRequest {
            block_hash: hash,
            indexes: vec![0, 1, 2],
        })),
        Message::BlockTxn(Box::new(BlockTransactions {
            block_hash: hash,
            transactions: block.txdata[1..2].to_vec(),
        })),
        Message::MemPool,
    ]
}

fn number_of(command: &str) -> u8 {
    COMMANDS
        .iter()
        .position(|known| *known == command)
        .expect("a known command") as u8
}

fn payloads(seeds: &mut Vec<Seed>) {
    for message in messages() {
        let number = number_of(message.command());
        seeds.push(seed(
            "payload",
            message.command(),
            &[&[number], &message.payload()],
        ));
    }
}

fn frames(seeds: &mut Vec<Seed>) {
    let all: Vec<u8> = messages()
        .iter()
        .filter(|message| message.payload().len() < 300)
        .flat_map(|message| message.encode(MAGIC))
        .collect();
    seeds.push(seed("frames", "many", &[&[0, 200], &all]));
    let (_, block) = small_block();
    let framed = Message::Block(block.clone().into()).encode(MAGIC);
    let ping = Message::Ping(1).encode(MAGIC);
    seeds.push(seed(
        "frames",
        "block-in-pieces",
        &[&[2, 90], &framed, &ping],
    ));
    // The extended header of Bitcoin SV: its name, no length, no checksum; then the name and the length in 64 bits.
    let mut extended = MAGIC.to_vec();
    extended.extend_from_slice(b"extmsg\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0block\0\0\0\0\0\0\0");
    extended.extend_from_slice(&(block.len() as u64).to_le_bytes());
    extended.extend_from_slice(&block);
    seeds.push(seed("frames", "extended", &[&[3, 90], &extended, &ping]));
    seeds.push(seed(
        "frames",
        "extended-whole",
        &[&[1, 90], &extended, &ping],
    ));
    seeds.push(seed(
        "frames",
        "another-network",
        &[&[0, 9], &[0xf9, 0xbe, 0xb4, 0xd9], &ping],
    ));
}

fn transports(seeds: &mut Vec<Seed>) {
    let version = messages()[0].encode(MAGIC);
    seeds.push(seed("transport", "version-1", &[&[0, 5], &version]));
    seeds.push(seed("transport", "version-1-refused", &[&[3, 5], &version]));
    seeds.push(seed(
        "transport",
        "a-key-and-garbage",
        &[&[0, 5], &[7; 600]],
    ));
    seeds.push(seed("transport", "an-initiators", &[&[6, 5], &[7; 600]]));
    let ping = [&[18u8][..], &[9; 8]].concat();
    let long = [&b"\0headers\0\0\0\0\0"[..], &messages()[17].payload()].concat();
    let mut packets = Vec::new();
    for (flags, contents) in [
        (0, &ping),
        (1, &long),
        (0, &long),
        (0, &vec![99, 1]),
        (0, &vec![]),
    ] {
        packets.push(flags);
        packets.extend(chunk(contents));
    }
    seeds.push(seed("transport", "packets", &[&[1, 3, 20], &packets]));
    packets.extend([2, 1, 0, 18, 0, 0, 64]);
    seeds.push(seed(
        "transport",
        "a-spoiled-packet",
        &[&[1, 255, 0], &packets],
    ));
    let mut sent = Vec::new();
    for message in messages()
        .iter()
        .filter(|message| message.payload().len() < 200)
    {
        sent.push(number_of(message.command()));
        sent.extend(chunk(&message.payload()));
    }
    seeds.push(seed("transport", "between-two", &[&[2, 11], &sent]));
}

fn block(seeds: &mut Vec<Seed>) {
    let (height, raw) = small_block();
    let height = (height as u16).to_le_bytes();
    seeds.push(seed("block", "payments", &[&[0, 100, 20], &height, &raw]));
    seeds.push(seed(
        "block",
        "other-height",
        &[&[1, 255, 1], &[9, 9], &raw],
    ));
    seeds.push(seed("block", "mainnet", &[&[9, 255, 1], &[0, 1], &raw]));
    for chain in 1..4u8 {
        let name = format!("chain-{chain}");
        let flags = 1 | chain << 1;
        seeds.push(seed("block", name, &[&[flags, 99, 5], &height, &raw]));
    }
    let blocks = blocks();
    seeds.push(seed(
        "block",
        "coinbase-alone",
        &[&[1, 30, 1], &[1, 0], &blocks[1]],
    ));
    seeds.push(seed(
        "block",
        "genesis",
        &[&[0, 79, 0], &[0, 0], &blocks[0]],
    ));
    let mut doubled = raw[..80].to_vec();
    let block: Block = deserialize(&raw).expect("a block");
    let coinbase = serialize(&block.txdata[0]);
    doubled.push(2);
    doubled.extend([coinbase.as_slice(), &coinbase].concat());
    seeds.push(seed(
        "block",
        "duplicated-pair",
        &[&[1, 200, 2], &height, &doubled],
    ));
    seeds.push(seed(
        "block",
        "cut",
        &[&[0, 60, 3], &height, &raw[..raw.len() - 3]],
    ));
}

fn headers(seeds: &mut Vec<Seed>) {
    let real: Vec<u8> = blocks()[1..12]
        .iter()
        .flat_map(|block| [&[0][..], &block[..80]].concat())
        .collect();
    seeds.push(seed("headers", "regtest", &[&[0, 0], &real]));
    let file: Vec<u8> = blocks()[..5]
        .iter()
        .flat_map(|block| block[..80].to_vec())
        .collect();
    seeds.push(seed("headers", "file", &[&[0, 1], &file, &[1, 2, 3]]));
    // Each: form, how far back, seconds, root.
    let branches: Vec<u8> = (0..60u8)
        .flat_map(|number| [1, number % 7 / 5 * 3, 88, 2, number])
        .collect();
    seeds.push(seed("headers", "branches", &[&[0, 0], &branches]));
    let bits: Vec<u8> = (0..6u8)
        .flat_map(|number| [7, 0, 88, 2, number, 0xff, 0xff, 0x7f, 0x20, number, 0, 0, 0])
        .collect();
    // A period of 2,016 and more: the difficulty changes, and follows the times.
    let periods = [
        17, 0, 148, 2, 7, 127, 17, 0, 9, 0, 8, 5, 17, 0, 0, 20, 9, 40,
    ];
    for chain in 0..3 {
        let name = format!("periods-{chain}");
        seeds.push(seed("headers", name, &[&[chain, 0], &periods]));
    }
    for network in 0..8 {
        seeds.push(seed(
            "headers",
            format!("bits-{network}"),
            &[&[network, 0], &bits],
        ));
    }
    seeds.push(seed(
        "headers",
        "too-early",
        &[&[0, 0], &[1, 0, 0, 0, 0, 1, 0, 255, 255, 0]],
    ));
}

fn sync(seeds: &mut Vec<Seed>) {
    // Headers of ten blocks with payments, the blocks, oldest first; then the same of the other peer's branch.
    let mut play = vec![0, 3, 0, 10, 60];
    for back in (0..10).rev() {
        play.extend([5, back]);
    }
    play.extend([15, 20]);
    let mut branch = play.clone();
    branch.extend([0x82, 5, 12, 60]);
    for back in (0..12).rev() {
        branch.extend([0x85, back]);
    }
    seeds.push(seed("sync", "two-branches", &[&branch]));
    // A new block at the tip, as a compact one with what was missing.
    let mut compact = play.clone();
    compact.extend([15, 5, 3, 0, 1, 60, 7, 1, 0, 0, 0, 0]);
    // Of the payments of the next the pool lacks the second and the third.
    let mut missing = compact.clone();
    missing.extend([0; 5]);
    missing.extend([
        3, 0, 1, 60, 7, 1, 0, 0, 0, 0, 0, 3, 3, 0, 0, 8, 0, 2, 2, 15, 5,
    ]);
    seeds.push(seed("sync", "compact-missing", &[&missing]));
    seeds.push(seed("sync", "compact", &[&compact]));
    let mut mutated = play.clone();
    mutated.extend([
        3, 0, 1, 60, 6, 0, 90, 0, 1, 5, 0, 9, 0, 1, 10, 0, 11, 4, 2, 1, 3,
    ]);
    seeds.push(seed("sync", "mutated", &[&mutated]));
    // 2,400 headers are wanted: two messages, read twice, and the first blocks of them.
    let mut presync = vec![2, 0x12, 0, 250, 5, 0x12, 0, 250, 5];
    presync.extend([0x14, 1, 0, 250, 0x14, 0xd1, 7, 250]);
    presync.extend([15, 20, 4, 1, 0]);
    let mut other = presync.clone();
    presync.extend([5, 255, 5, 254]);
    seeds.push(seed("sync", "presync", &[&presync]));
    // On the second reading it shows another branch.
    other.splice(9.., [0x92, 255, 250, 6, 0x14, 1, 0, 250, 0x14, 9, 9, 250]);
    seeds.push(seed("sync", "presync-changed", &[&other]));
    let mut pieces = play.clone();
    pieces[0] = 4;
    pieces.extend([2, 0, 3, 60, 5, 2, 0, 5, 1, 1]);
    seeds.push(seed("sync", "pieces", &[&pieces]));
    let mut any = vec![0];
    for message in messages()
        .iter()
        .filter(|message| message.payload().len() < 200)
    {
        any.extend([0, number_of(message.command())]);
        any.extend(chunk(&message.payload()));
    }
    seeds.push(seed("sync", "messages", &[&any]));
}

fn pool(seeds: &mut Vec<Seed>) {
    let transactions = transactions();
    let all: Vec<u8> = transactions
        .iter()
        .take(16)
        .flat_map(|raw| chunk(raw))
        .collect();
    seeds.push(seed("pool", "sixteen", &[&all]));
    let some: Vec<u8> = transactions[16..40.min(transactions.len())]
        .iter()
        .flat_map(|raw| [chunk(raw), vec![0, 0]].concat())
        .collect();
    seeds.push(seed("pool", "with-hours-between", &[&some]));
    let last = transactions.last().expect("some");
    seeds.push(seed("pool", "cut", &[&chunk(&last[..last.len() / 2])]));
}

fn socks(seeds: &mut Vec<Seed>) {
    let greeting = [5, 2, 1, 0];
    let connected = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let six = [&[5, 0, 0, 4][..], &[0; 18]].concat();
    let name = [5, 0, 0, 3, 4, b'a', b'.', b'b', b'c', 0, 80];
    seeds.push(seed(
        "socks",
        "connected",
        &[&[0, 0], &greeting, &connected, b"left"],
    ));
    seeds.push(seed("socks", "ipv6", &[&[1, 3], &greeting, &six]));
    seeds.push(seed(
        "socks",
        "name",
        &[&[1, 255], &greeting, &name, &[1, 2]],
    ));
    seeds.push(seed(
        "socks",
        "no-password",
        &[&[0, 9], &[5, 0], &connected],
    ));
    seeds.push(seed(
        "socks",
        "refused",
        &[&[0, 9], &greeting, &[5, 5, 0, 1, 0, 0]],
    ));
}

fn http(seeds: &mut Vec<Seed>) {
    let requests = [
        ("metrics", "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "status",
            "GET /api/v1/status HTTP/1.1\r\nhost: a\r\n\r\nGET /health HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "block",
            "GET /api/v1/blocks/0000000000000000000000000000000000000000000000000000000000000001 HTTP/1.0\r\n\r\n",
        ),
        ("height", "GET /api/v1/blocks/+7 HTTP/1.0\r\n\r\n"),
        (
            "pool",
            "GET /api/v1/mempool/tx/b6db15b5dbf6e7e71688226b72c8148a82d5de8953a3bfb0fda54eb31691c42b HTTP/1.0\r\n\r\n",
        ),
        (
            "query",
            "GET /api/v1/plugins/fees/query/history/of?from=1&to=%20%ff&page=9999999999999999999 HTTP/1.0\r\n\r\n",
        ),
        (
            "change",
            "POST /api/v1/plugins/fees/query/set?a=b HTTP/1.0\r\nauthorization: Bearer owner\r\n\r\n",
        ),
        (
            "manage",
            "POST /api/v1/plugins/fees/reload HTTP/1.0\r\nauthorization: Bearer owner\r\n\r\n",
        ),
        (
            "snapshot",
            "POST /api/v1/plugins/fees/snapshot?file=/tmp/x&at=5 HTTP/1.0\r\nauthorization: Bearer owner\r\n\r\n",
        ),
        (
            "ban",
            "POST /api/v1/peers/ban?address=192.0.2.0/24&for=2h&reason=x HTTP/1.0\r\nauthorization: Bearer owner\r\n\r\n",
        ),
        (
            "body",
            "POST /api/v1/config/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        ),
        ("nothing", "HEAD /nothing HTTP/1.0\r\n\r\n"),
    ];
    for (name, request) in requests {
        seeds.push(seed("http", name, &[&[40], request.as_bytes()]));
    }
}
