//! What more than one target needs: a network, its proof of work, checksums put right, a folder for files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, transaction,
};
use blockmill::network::{Network, Params, chain_file};

/// Of regtest, in wire order.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Bits that every second hash meets.
pub const BITS: u32 = 0x207f_ffff;
/// A moment after all that the seeds are made of, in unix seconds.
pub const NOW: u64 = 1_800_000_000;

/// The network of all targets: its proof of work can be made.
pub fn regtest() -> &'static Params {
    Network::Regtest.params()
}

/// Chains with regtest's proof of work and the rules of others: difficulty that follows the times (with blocks of the easiest
/// kind, or with Bitcoin Cash's rules and no segregated witness), and a signet whose challenge anybody meets.
pub static CHAINS: LazyLock<[&'static Params; 4]> = LazyLock::new(|| {
    let chain = |rest: &str| {
        let params = chain_file::read(rest, "a chain of the fuzz targets").expect("a chain file");
        let params: &'static Params = Box::leak(Box::new(params));
        params
    };
    [
        regtest(),
        chain(
            "name = \"easy\"\nbase = \"regtest\"\nno_retargeting = false\nallow_min_difficulty = true\n",
        ),
        chain(
            "name = \"cash\"\nbase = \"regtest\"\nno_retargeting = false\nallow_min_difficulty = false\nsegwit = false\n\
             max_block_size = [{ from = 0, bytes = 1_000_000 }]\nuahf_height = 20\ndaa_height = 2_016\n",
        ),
        chain("name = \"open\"\nbase = \"signet\"\nsignet_challenge = \"51\"\n"),
    ]
});

/// A header on top of `parent`, without proof of work.
pub fn header(parent: &Header, merkle_root: TxMerkleNode, seconds: u32) -> Header {
    Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root,
        time: parent.time.wrapping_add(seconds),
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    }
}

/// A block on top of `parent` with so many payments that spend nobody's coins; `salt` makes it unlike others.
pub fn block(parent: &Header, height: u32, salt: u32, payments: usize, seconds: u32) -> Block {
    let script = Builder::new()
        .push_int(height.into())
        .push_int(salt.into())
        .into_script();
    let mut txdata = vec![pay(OutPoint::null(), script)];
    txdata.extend((0..payments as u32).map(|number| {
        let txid = sha256d::Hash::hash(&[salt.to_le_bytes(), number.to_le_bytes()].concat());
        pay(
            OutPoint::new(Txid::from_raw_hash(txid), 0),
            ScriptBuf::new(),
        )
    }));
    let mut block = Block {
        header: header(parent, TxMerkleNode::all_zeros(), seconds),
        txdata,
    };
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    mine(&mut block.header);
    block
}

fn pay(previous_output: OutPoint, script_sig: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51; 30]),
        }],
    }
}

/// Finds a nonce, where a few tries find one.
pub fn mine(header: &mut Header) {
    for _ in 0..64 {
        if header.target().is_met_by(header.block_hash()) {
            return;
        }
        header.nonce = header.nonce.wrapping_add(1);
    }
}

/// Writes the right checksum into each frame: an input that changes in one place would else end there.
pub fn put_checksums_right(stream: &mut [u8]) {
    let mut at = 0;
    while let Some(frame) = stream.get_mut(at..).filter(|rest| rest.len() >= 24) {
        let length = u32::from_le_bytes([frame[16], frame[17], frame[18], frame[19]]) as usize;
        let Some(payload) = frame.get(24..).and_then(|rest| rest.get(..length)) else {
            return;
        };
        let sum = sha256d::Hash::hash(payload).to_byte_array();
        frame[20..24].copy_from_slice(&sum[..4]);
        at += 24 + length;
    }
}

/// Writes the CRC-32 of what is before them into the last four bytes.
pub fn put_crc_right(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(body).to_le_bytes();
    }
}

/// The beginning of the name of [`scratch`]; the number of the process follows.
const SCRATCH: &str = "blockmill-fuzz-";

/// A folder for what a target reads from files, in memory where that can be. Those of processes that have ended are removed.
pub fn scratch() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix(SCRATCH));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let folder = parent.join(format!("{SCRATCH}{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for files");
        folder
    });
    &FOLDER
}

/// Removes [`scratch`], for a process that ends now.
pub fn clean_up() {
    let _ = std::fs::remove_dir_all(scratch());
}

/// A new, empty folder of this name in [`scratch`].
pub fn empty_folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for files");
    folder
}
