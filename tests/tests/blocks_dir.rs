//! Bitcoin Core's block folder as the source: whatever state its files are in, the coins are Core's, and nothing is stored twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{Host, Installation};
use devnet::Devnet;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const COINS: &str = "\n[plugins.utxo-tracker]\n";
/// Tips of `main.dat` and `branch.dat`, and the coins there as Bitcoin Core printed them.
const MAIN_TIP: &str = "1a5c58e1336efe6d979fb9ffa77714c8c9979ca9ba1de8e44cec231075fc5dc8";
const MAIN_MUHASH: &str = "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e";
const BRANCH_TIP: &str = "14d7bfd71eed2bc3a9823a5d6e53271dffef5da8021ef818649af79ac0088e59";
const BRANCH_MUHASH: &str = "4f9e4e6f2dfac3ea10770abdde44160ecad39d96f819c92be3d8ecf9289312ea";
const MUHASH_124: &str = "ce8d7ef686cb5e4659d5211a62c480f7b475ad13d43f95e1720aad7fd90eb009";
/// The genesis block and its frame, which every log of ours begins with.
const GENESIS_BYTES: u64 = 8 + 285;

/// The frames of a file of the test data; in `main.dat`, by height.
fn frames(name: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(data::regtest(name)).unwrap();
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize + 8;
        frames.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    frames
}

/// A folder as Core keeps it.
struct Folder {
    dir: TempDir,
    key: [u8; 8],
}

impl Folder {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            key: [0; 8],
        }
    }

    fn masked(key: [u8; 8]) -> Self {
        let folder = Self { key, ..Self::new() };
        fs::write(folder.path().join("xor.dat"), key).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, number: u32) -> PathBuf {
        self.path().join(format!("blk{number:05}.dat"))
    }

    /// Writes bytes into a file at an offset, through the key.
    fn write_at(&self, number: u32, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        let masked: Vec<u8> = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ self.key[(offset as usize + at) % 8])
            .collect();
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.file(number))
            .unwrap();
        file.write_all_at(&masked, offset).unwrap();
    }

    fn write(&self, number: u32, frames: &[Vec<u8>]) {
        self.write_at(number, 0, &frames.concat());
    }

    fn installation(&self, peers: &[std::net::SocketAddr]) -> Installation {
        Installation::new("regtest", peers)
            .unwrap()
            .key("source", "kind = \"blocks-dir\"")
            .key("source", &format!("path = \"{}\"", self.path().display()))
            .plugins(COINS)
    }
}

fn muhash(host: &mut Host, tip: &str) -> Value {
    host.coins_at(tip, LIMIT).unwrap()["muhash"].take()
}

/// The bytes of blocks that the installation keeps itself.
fn own_bytes(installation: &Installation) -> u64 {
    let files = fs::read_dir(installation.data().join("blocks")).unwrap();
    files
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("blk0"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_sync_from_the_folder_needs_no_peer_and_stores_no_block() {
    let frames = frames("main.dat");
    let folder = Folder::new();
    folder.write(0, &frames[..50]);
    folder.write(1, &frames[50..]);
    let installation = folder.installation(&[]);
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    let status = host
        .wait_for("synced", LIMIT, |status| {
            (status["synced"] == true).then(|| status.clone())
        })
        .unwrap();
    let source = &status["source"];
    assert_eq!(source["files"], 2);
    assert_eq!(source["scanned"], true);
    assert_eq!(source["blocks_taken"], 130);
    assert_eq!(source["blocks_waiting"], 0);
    // A block is read from there.
    let block = host.get("blocks/77").unwrap();
    assert!(block["txs"].as_u64().unwrap() > 0, "{block}");
    host.stop().unwrap();
    assert_eq!(own_bytes(&installation), GENESIS_BYTES);

    // It is where it was after a restart, and checks nothing again.
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    let status = host.get("status").unwrap();
    assert_eq!(status["source"]["blocks_taken"], 130);
    host.stop().unwrap();
    assert_eq!(own_bytes(&installation), GENESIS_BYTES);
}

#[test]
fn a_kill_loses_nothing_that_was_checked() {
    let folder = Folder::new();
    folder.write(0, &frames("main.dat"));
    let installation = folder.installation(&[]);
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    host.kill9().unwrap();
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    host.stop().unwrap();
    assert_eq!(own_bytes(&installation), GENESIS_BYTES);
}

#[test]
fn masked_files_with_blocks_out_of_order_twice_and_on_a_branch_end_at_the_heavier_branch() {
    for seed in [1, 2] {
        println!("seed {seed}");
        let mut all = frames("main.dat");
        all.extend(frames("branch.dat"));
        let twice = all[60..64].to_vec();
        all.extend(twice);
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let folder = Folder::masked([0x17, 0x2b, 0, 0xff, 0x91, 4, 0xd2, 0x68]);
        for (number, part) in all.chunks(37).enumerate() {
            folder.write(number as u32, part);
        }
        let installation = folder.installation(&[]);
        let mut host = installation.start().unwrap();
        assert_eq!(muhash(&mut host, BRANCH_TIP), BRANCH_MUHASH);
        host.stop().unwrap();
        assert_eq!(own_bytes(&installation), GENESIS_BYTES);
    }
}

#[test]
fn a_folder_that_grows_is_followed_through_half_written_blocks_and_a_reorg() {
    let main = frames("main.dat");
    let folder = Folder::masked([9, 8, 7, 6, 5, 4, 3, 2]);
    // As Core does it: room first, of zeros, then the blocks.
    fs::write(folder.file(0), vec![0; 8 << 20]).unwrap();
    folder.write(0, &main[..125]);
    let mut end: u64 = main[..125].iter().map(|frame| frame.len() as u64).sum();
    let installation = folder.installation(&[]);
    let mut host = installation.start().unwrap();
    host.wait_for_height(124, LIMIT).unwrap();
    let coins = host
        .wait_for("the coins of 124", LIMIT, |status| {
            let hash = status["tip"]["hash"].as_str()?.to_owned();
            Some(hash)
        })
        .unwrap();
    assert_eq!(muhash(&mut host, &coins), MUHASH_124);

    // One whole, and of the next the first half.
    folder.write_at(0, end, &main[125]);
    end += main[125].len() as u64;
    let half = main[126].len() / 2;
    folder.write_at(0, end, &main[126][..half]);
    host.wait_for_height(125, LIMIT).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(host.get("status").unwrap()["tip"]["height"], 125);
    folder.write_at(0, end + half as u64, &main[126][half..]);
    host.wait_for_height(126, LIMIT).unwrap();
    end += main[126].len() as u64;
    folder.write_at(0, end, &main[127..].concat());
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);

    folder.write(1, &frames("branch.dat"));
    assert_eq!(muhash(&mut host, BRANCH_TIP), BRANCH_MUHASH);
    host.wait_for("one reorg", LIMIT, |status| {
        (status["reorgs"] == 1).then_some(())
    })
    .unwrap();
    host.stop().unwrap();
    assert_eq!(own_bytes(&installation), GENESIS_BYTES);
}

#[test]
fn what_the_folder_lacks_comes_from_peers_and_the_rest_does_not() {
    let main = frames("main.dat");
    let devnet = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let folder = Folder::new();
    // Pruned: the first files are gone. One block is cut in the middle, with others behind it, and one spoiled.
    let mut third = main[60..80].concat();
    let cut = main[60..70].iter().map(Vec::len).sum::<usize>() + main[70].len() / 2;
    third.drain(cut..cut + main[70].len() / 4);
    let mut fourth = main[80..].to_vec();
    let spoiled = fourth[3].len() - 20;
    fourth[3][spoiled] ^= 1;
    folder.write_at(2, 0, &third);
    folder.write(3, &fourth);
    let installation = folder.installation(&[devnet.p2p_addr()]);
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    let status = host.get("status").unwrap();
    assert_eq!(status["source"]["files_missing"], 2);
    assert_eq!(status["source"]["blocks_unconnected"], 0);
    assert_eq!(status["source"]["blocks_taken"], 69, "{status}");
    host.stop().unwrap();
    let log = installation.log();
    assert!(log.contains("blk00000.dat to blk00001.dat"), "{log}");
    // Genesis, those of the first files, the one that was cut and the one that was spoiled.
    let from_peers = main[1..60].iter().chain([&main[70], &main[83]]);
    let bytes: usize = from_peers.map(Vec::len).sum();
    assert_eq!(own_bytes(&installation), GENESIS_BYTES + bytes as u64);
}

#[test]
fn without_peers_a_pruned_folder_is_waited_for_and_says_what_is_missing() {
    let main = frames("main.dat");
    let folder = Folder::new();
    folder.write(1, &main[60..]);
    let mut host = folder.installation(&[]).start().unwrap();
    let status = host
        .wait_for("the end of the search", LIMIT, |status| {
            let source = &status["source"];
            let done = source["scanned"] == true && source["blocks_unconnected"] == 71;
            done.then(|| status.clone())
        })
        .unwrap();
    assert_eq!(status["source"]["files_missing"], 1);
    assert_eq!(status["tip"]["height"], 0);
    let (code, health) = host.get_text("/health").unwrap();
    assert_eq!(code, 503, "{health}");
    // The file comes back, from a backup say.
    folder.write(0, &main[..60]);
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    host.stop().unwrap();
}

#[test]
fn a_file_that_core_pruned_afterwards_takes_nothing_from_the_chain() {
    let main = frames("main.dat");
    let folder = Folder::new();
    folder.write(0, &main[..60]);
    folder.write(1, &main[60..]);
    let installation = folder.installation(&[]);
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    host.stop().unwrap();
    fs::remove_file(folder.file(0)).unwrap();
    let mut host = installation.start().unwrap();
    assert_eq!(muhash(&mut host, MAIN_TIP), MAIN_MUHASH);
    let block = host.get("blocks/30").unwrap();
    assert_eq!(block["height"], 30);
    assert!(block["txs"].is_null(), "its content is gone: {block}");
    assert!(host.get("blocks/61").unwrap()["txs"].is_u64());
    // And on from there.
    folder.write(2, &frames("branch.dat"));
    assert_eq!(muhash(&mut host, BRANCH_TIP), BRANCH_MUHASH);
    host.stop().unwrap();

    // Without the source what was checked still counts.
    let alone = installation
        .key("source", "kind = \"peers\"")
        .key("source", "path = \"\"");
    let mut host = alone.start().unwrap();
    assert_eq!(muhash(&mut host, BRANCH_TIP), BRANCH_MUHASH);
    host.stop().unwrap();
}

fn refusal(path: &str) -> String {
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("source", "kind = \"blocks-dir\"")
        .key("source", &format!("path = \"{path}\""));
    installation
        .write_config("127.0.0.1:1".parse().unwrap())
        .unwrap();
    let output = installation.command(&["check"]).unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!installation.data().exists(), "nothing is touched");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_wrong_path_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("datadir/blocks")).unwrap();
    fs::write(at("datadir/blocks/blk00000.dat"), [0; 100]).unwrap();
    fs::create_dir(at("mainnet")).unwrap();
    let mut file = fs::File::create(at("mainnet/blk00000.dat")).unwrap();
    file.write_all(&[0xf9, 0xbe, 0xb4, 0xd9, 1, 0, 0, 0])
        .unwrap();
    fs::create_dir(at("key")).unwrap();
    fs::write(at("key/blk00000.dat"), b"").unwrap();
    fs::write(at("key/xor.dat"), b"short").unwrap();

    for (path, says) in [
        ("".to_owned(), "it is empty"),
        (at("nowhere"), "does not exist"),
        (at("mainnet/blk00000.dat"), "is not a folder"),
        (at("empty"), "has no blk*.dat"),
        (at("datadir"), "give \"{}/datadir/blocks\""),
        (at("mainnet"), "these are blocks of mainnet"),
        (at("key"), "not the 8 of a key"),
    ] {
        let said = refusal(&path);
        let says = says.replace("{}", &folder.path().display().to_string());
        assert!(said.contains(&says), "{path}: {said}");
        assert!(said.contains("source.path"), "{path}: {said}");
    }
}
