//! Blocks that only their coins show to be wrong: the host leaves them for the chain that Bitcoin Core has, and says why, once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::p2p::Magic;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Installation};
use devnet::blockfile::{self, RawBlock};
use devnet::{Config, Devnet};

const LIMIT: Duration = Duration::from_secs(120);
/// The first block that is wrong; of the good ones, those from the genesis to the one below it are kept.
const FORK: usize = 128;
/// Blocks above it: more than the good branch has.
const FORGED: u32 = 6;
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);
/// Core's, of `main.dat` at 130.
const MUHASH: &str = "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e";

/// A transaction that pays to anyone.
fn pays(spent: &[OutPoint], script_sig: ScriptBuf, amount: Amount) -> Transaction {
    let input = spent.iter().map(|outpoint| TxIn {
        previous_output: *outpoint,
        script_sig: script_sig.clone(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    });
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: input.collect(),
        output: vec![TxOut {
            value: amount,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

/// A block with all that its header commits to.
fn forged(below: &Block, height: i64, reward: Amount, others: &[Transaction]) -> Block {
    let script = Builder::new().push_int(height).push_int(7).into_script();
    let mut block = below.clone();
    block.txdata = vec![pays(&[OutPoint::null()], script, reward)];
    block.txdata.extend_from_slice(others);
    block.header.prev_blockhash = below.block_hash();
    block.header.time += 600;
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    let target = block.header.target();
    while block.header.validate_pow(target).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// What is wrong, and what Bitcoin Core calls it.
fn wrongs(good: &[Block]) -> Vec<(Amount, Vec<Transaction>, &'static str)> {
    let spend = |outpoint: OutPoint, amount| pays(&[outpoint], ScriptBuf::new(), amount);
    let coinbase = |height: usize| OutPoint::new(good[height].txdata[0].compute_txid(), 0);
    let nowhere: Txid = "11".repeat(32).parse().unwrap();
    let sat = Amount::ONE_SAT;
    vec![
        (SUBSIDY + sat, vec![], "bad-cb-amount"),
        (
            SUBSIDY,
            vec![spend(OutPoint::new(nowhere, 0), sat)],
            "bad-txns-inputs-missingorspent",
        ),
        (
            SUBSIDY,
            vec![spend(coinbase(FORK - 1), sat)],
            "bad-txns-premature-spend-of-coinbase",
        ),
        (
            SUBSIDY,
            vec![spend(coinbase(FORK - 100), SUBSIDY * 2)],
            "bad-txns-in-belowout",
        ),
    ]
}

fn write(path: &Path, blocks: &[Block]) {
    let blocks: Vec<RawBlock> = blocks
        .iter()
        .map(|block| {
            let bytes = Arc::new(serialize(block));
            let all = 0..bytes.len();
            RawBlock::new(bytes, all).unwrap()
        })
        .collect();
    blockfile::write(path, Magic::REGTEST, &blocks).unwrap();
}

#[test]
fn a_heavier_branch_that_makes_or_finds_coins_is_left_for_the_good_one() {
    let raw = blockfile::read(&data::regtest("main.dat"), Magic::REGTEST).unwrap();
    let good: Vec<Block> = raw.iter().map(|block| block.decode().unwrap()).collect();
    let honest = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let tip = good.last().unwrap().block_hash().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (number, (reward, others, words)) in wrongs(&good).into_iter().enumerate() {
        let mut bad = good[..FORK].to_vec();
        for more in 0..FORGED {
            let height = i64::from(more) + FORK as i64;
            let (reward, others) = match more {
                0 => (reward, others.as_slice()),
                _ => (SUBSIDY, &[][..]),
            };
            bad.push(forged(bad.last().unwrap(), height, reward, others));
        }
        let path = folder.path().join(format!("{number}.dat"));
        write(&path, &bad);
        let liar = Devnet::start(Config {
            files: vec![path],
            keep_coins: false,
            ..Config::default()
        })
        .unwrap();
        let peers = [liar.p2p_addr(), honest.p2p_addr()];
        let mut host = Installation::new("regtest", &peers)
            .unwrap()
            .plugins(ALL_ROWS)
            .spawn(&[])
            .unwrap();
        let wrong = bad[FORK].block_hash().to_string();
        let refused = format!("height={FORK} hash={wrong}");
        host.wait_for_lines(&refused, 1, LIMIT).unwrap();
        let coins = host.coins_at(&tip, LIMIT).unwrap();
        assert_eq!(coins["muhash"], MUHASH, "{words}");
        let log = host.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&refused)).collect();
        assert_eq!(lines.len(), 1, "said over and over: {}", lines.len());
        assert!(lines[0].contains(words), "{}", lines[0]);
        host.stop().unwrap();
    }
}
