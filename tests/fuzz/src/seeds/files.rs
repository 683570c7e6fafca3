//! What comes out of files.

use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{Block, Txid};
use blockmill::block_log::{BlockFrames, Frames, SegmentLog, SegmentLogOptions, SpentFrames};
use blockmill::chain::sync::bans::Bans;
use blockmill::chain::sync::book::{Book, BookFile, Group, NetAddress};
use blockmill::frame::Spent;
use blockmill::lane::Position;
use blockmill::mempool::{Entry, Journal, MempoolChanges, Origin, RemoveReason, save};
use blockmill::plugin::{Capsule, CapsuleHeader, Given, Recording};
use blockmill::snapshot::format::{ChunkWriter, Header};
use blockmill::store::{Cursor, OutPointKey, coin_key, encode_coin};
use sha2::{Digest as _, Sha256};

use super::{Seed, blocks, chunk, framed, seed, small_block, transactions};
use crate::shapes::{self, MAGIC};

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    columns(&mut seeds);
    core_blocks(&mut seeds);
    log(&mut seeds);
    pool_file(&mut seeds);
    snapshot(&mut seeds);
    capsules(&mut seeds);
    coins(&mut seeds);
    peer_book(&mut seeds);
    settings(&mut seeds);
    seeds
}

fn spent() -> Spent {
    let scripts: [&[u8]; 4] = [b"", &[0x51; 22], &[0x52; 34], &[0x53; 25]];
    let mut spent = Spent::default();
    for (number, script) in (0u32..).zip(scripts) {
        spent.values.push(u64::from(number) * 50_000);
        spent.scripts.extend_from_slice(script);
        spent.script_ends.push(spent.scripts.len() as u32);
        spent.heights.push(number * 9);
        spent.coinbases.push((number == 3).into());
    }
    spent
}

fn columns(seeds: &mut Vec<Seed>) {
    let four = spent().encode();
    seeds.push(seed("spent", "none", &[&Spent::default().encode()]));
    seeds.push(seed("spent", "four", &[&four]));
    seeds.push(seed("spent", "cut", &[&four[..four.len() - 9]]));
    seeds.push(seed("spent", "many", &[&[0xff; 4], &four]));
}

fn core_blocks(seeds: &mut Vec<Seed>) {
    let frames: Vec<Vec<u8>> = blocks()[..6].iter().map(|block| framed(block)).collect();
    let all = frames.concat();
    seeds.push(seed("core_blocks", "plain", &[&[0; 8], &all]));
    seeds.push(seed(
        "core_blocks",
        "room-behind",
        &[b"\xa1\0\x17\xff\x05\x06\x07\x80", &all, &[0; 300]],
    ));
    seeds.push(seed(
        "core_blocks",
        "cut-in-between",
        &[
            b"12345678",
            &frames[0],
            &frames[1][..130],
            &frames[2],
            &[0x55; 40],
            &frames[3],
        ],
    ));
    seeds.push(seed(
        "core_blocks",
        "another-network",
        &[&[0; 8], &[0xf9, 0xbe, 0xb4, 0xd9], &all],
    ));
}

/// A log's files, read from a folder in which one was written.
fn written<F: Frames>(bodies: &[([u8; 32], Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let folder = shapes::empty_folder("seed-log");
    let log = SegmentLog::<F>::open(&folder, MAGIC, SegmentLogOptions::default()).expect("a log");
    for ((hash, body), height) in bodies.iter().zip(0..) {
        log.append(hash, height, body).expect("appended");
    }
    log.sync().expect("synced");
    drop(log);
    let read = |name: &str| std::fs::read(folder.join(format!("{}{name}", F::PREFIX)));
    (
        read(".index").expect("the index"),
        read("00000.dat").expect("a segment"),
    )
}

fn log(seeds: &mut Vec<Seed>) {
    let blocks: Vec<([u8; 32], Vec<u8>)> = blocks()[..4]
        .iter()
        .map(|raw| {
            let block: Block = deserialize(raw).expect("a block");
            (block.block_hash().to_byte_array(), raw.clone())
        })
        .collect();
    let (index, segment) = written::<BlockFrames>(&blocks);
    let whole = [chunk(&index), chunk(&segment)].concat();
    seeds.push(seed("log_recovery", "blocks", &[&[0], &whole]));
    let torn = [chunk(&index[..100]), chunk(&segment[..segment.len() - 7])].concat();
    seeds.push(seed("log_recovery", "torn", &[&[0], &torn]));
    let no_index = [chunk(&[]), chunk(&segment)].concat();
    seeds.push(seed(
        "log_recovery",
        "no-index",
        &[&[0], &no_index, &segment],
    ));
    let spents: Vec<([u8; 32], Vec<u8>)> = blocks
        .iter()
        .map(|(hash, _)| (*hash, spent().encode()))
        .collect();
    let (index, segment) = written::<SpentFrames>(&spents);
    let split = [chunk(&index), chunk(&segment)].concat();
    seeds.push(seed("log_recovery", "spent", &[&[1], &split]));
    let no_index = [chunk(&[]), chunk(&[])].concat();
    seeds.push(seed(
        "log_recovery",
        "spent-no-index",
        &[&[1], &no_index, &segment],
    ));
    seeds.push(seed(
        "log_recovery",
        "another-network",
        &[&[0, 0, 0, 9, 0], &[0xf9, 0xbe, 0xb4, 0xd9, 1, 0, 0, 0, 7]],
    ));
}

fn entries() -> Vec<Arc<Entry>> {
    transactions()
        .into_iter()
        .take(6)
        .map(|raw| Entry::told(raw.into(), 500, 150, Some(1), 1_700_000_000, Vec::new()))
        .map(|entry| Arc::new(entry.expect("a transaction")))
        .collect()
}

fn pool_file(seeds: &mut Vec<Seed>) {
    let entries = entries();
    let path = shapes::empty_folder("seed-pool").join("mempool.dat");
    save(&path, MAGIC, &entries[..3]).expect("saved");
    let mut journal = Journal::new(&path, MAGIC);
    journal
        .append(&entries[3..5], 5, 5_000_000)
        .expect("appended");
    journal
        .append(&entries[5..], 6, 5_002_000)
        .expect("appended");
    let saved = std::fs::read(&path).expect("saved");
    let journal = std::fs::read(path.with_extension("journal")).expect("written");
    seeds.push(seed("pool_file", "both", &[&[0], &chunk(&saved), &journal]));
    seeds.push(seed("pool_file", "saved", &[&[0], &chunk(&saved)]));
    seeds.push(seed(
        "pool_file",
        "torn",
        &[&[0], &chunk(&saved), &journal[..journal.len() / 2]],
    ));
    seeds.push(seed(
        "pool_file",
        "checksum",
        &[&[1], &chunk(&saved[..40]), b"BMPJNL"],
    ));
}

fn snapshot(seeds: &mut Vec<Seed>) {
    let file = |entries: &[(Vec<u8>, Vec<u8>)]| {
        let mut chunks = ChunkWriter::new(Vec::new());
        for (key, value) in entries {
            chunks.put(key, value).expect("written to memory");
        }
        let (body, count, state_hash) = chunks.finish().expect("written to memory");
        let header = Header {
            magic: MAGIC,
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
        bytes
    };
    let some: Vec<_> = (0..9u8)
        .map(|number| (vec![number, 7], vec![number; number.into()]))
        .collect();
    let whole = file(&some);
    seeds.push(seed("snapshot", "nine", &[&[0], &whole]));
    seeds.push(seed("snapshot", "none", &[&[0], &file(&[])]));
    seeds.push(seed(
        "snapshot",
        "torn",
        &[&[1], &whole[..whole.len() - 40]],
    ));
}

fn capsules(seeds: &mut Vec<Seed>) {
    let (height, raw) = small_block();
    let block: Block = deserialize(&raw).expect("a block");
    let given = [
        ("start", Given::Start),
        (
            "block",
            Given::Block {
                position: Position {
                    height,
                    hash: block.block_hash(),
                },
                median_time: 9,
                raw: raw.into(),
                spent: Some(Arc::new(spent())),
            },
        ),
        (
            "pool",
            Given::Mempool {
                header: blockmill::plugin::PoolHeader {
                    reset: true,
                    time: 4,
                    height: 5,
                    current: false,
                },
                changes: MempoolChanges {
                    added: entries()
                        .into_iter()
                        .map(|entry| (entry, Origin::New))
                        .collect(),
                    removed: vec![(Txid::all_zeros(), RemoveReason::Evicted)],
                },
            },
        ),
        (
            "query",
            Given::Query {
                path: "p".to_owned(),
                params: vec![("a".to_owned(), "b".to_owned())],
            },
        ),
    ];
    for (name, given) in given {
        let capsule = Capsule {
            header: CapsuleHeader {
                plugin: "one".to_owned(),
                recorded: true,
                ..CapsuleHeader::default()
            },
            wasm: Some(Arc::from(&b"\0asm"[..])),
            given,
            reads: Recording::default(),
        };
        let bytes = capsule.encode(1 << 20).expect("small enough");
        seeds.push(seed("capsule", name, &[&[0], &bytes]));
    }
    seeds.push(seed(
        "capsule",
        "no-capsule",
        &[&[0], b"BMCAPS\0\x02 and more"],
    ));
}

fn coins(seeds: &mut Vec<Seed>) {
    let mut all = Vec::new();
    for number in 0..5u8 {
        let key = coin_key(&OutPointKey {
            txid: [number; 32],
            vout: number.into(),
        });
        let mut value = Vec::new();
        encode_coin(
            7,
            number == 3,
            5_000,
            &vec![0x51; usize::from(number) * 80],
            &mut value,
        );
        all.extend(chunk(&key));
        all.extend(chunk(&value));
    }
    seeds.push(seed("coins", "five", &[&all]));
    seeds.push(seed("coins", "no-coin", &[&chunk(b"K"), &chunk(b"V")]));
}

fn peer_book(seeds: &mut Vec<Seed>) {
    let mut book = Book::new([1, 2]);
    let now = 1_700_000_000;
    let addresses: Vec<NetAddress> = [
        "192.0.2.7:8333",
        "[2001:db8::7]:8333",
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
    ]
    .iter()
    .map(|text| text.parse().expect("an address"))
    .collect();
    for address in &addresses {
        book.pin(*address, now);
        book.tried(&address.handle(), now);
        book.good(&address.handle(), ServiceFlags::NETWORK, now);
        book.ended(&address.handle(), "silent for too long", now);
    }
    let _ = Group::of_name("seed");
    let mut bans = Bans::default();
    bans.ban("10.0.0.0/8".parse().expect("a subnet"), None, "test", now);
    bans.ban(
        "2001:db8::/32".parse().expect("a subnet"),
        Some(now + 9),
        "\"x\"\n",
        now,
    );
    let file = BookFile::encode("regtest", &book, &bans, &addresses[..2]);
    seeds.push(seed("peer_book", "file", &[&[0], &file]));
    seeds.push(seed("peer_book", "torn", &[&[0], &file[..file.len() / 2]]));
    for (name, text) in [
        ("ipv4", "192.0.2.7:8333"),
        ("ipv6", "[2001:db8::7]:18444"),
        (
            "onion",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
        ),
        ("subnet", "192.0.2.0/24"),
        ("subnet6", "2001:db8::/33"),
        ("mapped", "::ffff:192.0.2.7/120"),
        ("name", "example.org:8333"),
    ] {
        seeds.push(seed("peer_book", name, &[&[1], text.as_bytes()]));
    }
}

fn settings(seeds: &mut Vec<Seed>) {
    let file = include_str!("../../../../config/chains/bsv-main.toml");
    let own = |text: &str| text.replace("bsv-main", "my-chain");
    seeds.push(seed(
        "chain_file",
        "bitcoin-sv",
        &[own(&without_comments(file)).as_bytes()],
    ));
    let signet = "name = \"mine\"\nbase = \"signet\"\nsignet_challenge = \"51\"\nport = 1\n";
    seeds.push(seed("chain_file", "signet", &[signet.as_bytes()]));
    let regtest = "name = \"r\"\nbase = \"regtest\"\nhalving_interval = 0\nbip34_height = 9\n";
    seeds.push(seed("chain_file", "refused", &[regtest.as_bytes()]));

    let file = include_str!("../../../../config/blockmill.toml");
    seeds.push(seed(
        "config",
        "defaults",
        &[without_comments(file).as_bytes()],
    ));
    let environment =
        "NETWORK=regtest\nPEERS__CONNECT=127.0.0.1:18444,a.onion\nPLUGINS__WATCH__ENABLED=true\n";
    seeds.push(seed(
        "config",
        "environment",
        &[b"[log]\nlevel = \"warn\"\n\0", environment.as_bytes()],
    ));
    let plugin = "network = \"signet\"\n[plugins.watch]\nenabled = false\nmemory_limit = \"64 MiB\"\nsettings = { a = [1, 2.5, \"x\"] }\n";
    seeds.push(seed("config", "plugin", &[plugin.as_bytes()]));
    seeds.push(seed("config", "refused", &[b"[peers]\nmax_outbuond = 8\n"]));
}

/// The lines that say something: the seeds are to be small.
fn without_comments(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect()
}
