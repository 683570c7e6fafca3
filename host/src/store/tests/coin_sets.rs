//! Real blocks replayed through a lane's state give the coin sets that Bitcoin Core printed for them.

use std::path::PathBuf;

use bitcoin::Block;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;

use crate::store::{
    COIN_KEY_LEN, Coin, CoinView, Cursor, Keys, LaneState, OutPointKey, StateStore, TxOutSet,
    ValueColumn, coin_key, encode_coin, is_unspendable, txoutset,
};

fn data() -> Option<PathBuf> {
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("BLOCKMILL_TEST_DATA").map_or_else(here, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no test data in {}", path.display());
    None
}

/// The blocks of a file in `blk*.dat` framing.
fn blocks(file: &std::path::Path) -> Vec<Block> {
    let bytes = std::fs::read(file).unwrap();
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while rest.len() > 8 {
        let len = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(deserialize(&rest[8..8 + len]).unwrap());
        rest = &rest[8 + len..];
    }
    blocks
}

fn outpoint(outpoint: &bitcoin::OutPoint) -> OutPointKey {
    OutPointKey {
        txid: outpoint.txid.to_byte_array(),
        vout: outpoint.vout,
    }
}

fn connect(lane: &mut LaneState, height: u32, block: &Block, journal: bool) {
    lane.begin_block();
    for (index, tx) in block.txdata.iter().enumerate() {
        let txid = tx.compute_txid().to_byte_array();
        if index > 0 {
            let keys: Vec<u8> = tx
                .input
                .iter()
                .flat_map(|input| coin_key(&outpoint(&input.previous_output)))
                .collect();
            let mut spent = ValueColumn::default();
            lane.take_many(Keys::fixed(COIN_KEY_LEN, &keys), &mut spent)
                .unwrap();
            assert!(
                spent.found.iter().all(|found| *found == 1),
                "an input of block {height} is not there"
            );
        }
        if height == 0 {
            continue;
        }
        for (vout, output) in tx.output.iter().enumerate() {
            let script = output.script_pubkey.as_bytes();
            if is_unspendable(script) {
                continue;
            }
            let mut value = Vec::new();
            encode_coin(
                height,
                index == 0,
                output.value.to_sat(),
                script,
                &mut value,
            );
            lane.put(
                &coin_key(&OutPointKey {
                    txid,
                    vout: vout as u32,
                }),
                &value,
            )
            .unwrap();
        }
    }
    let hash = block.block_hash().to_byte_array();
    lane.commit_block(Cursor { height, hash }, journal).unwrap();
}

fn set(lane: &mut LaneState) -> TxOutSet {
    lane.flush().unwrap();
    txoutset(&lane.snapshot().unwrap(), |_| true)
        .unwrap()
        .unwrap()
}

#[test]
fn mainnet_coins_hash_to_what_core_printed() {
    let Some(data) = data() else { return };
    let blocks = blocks(&data.join("blocks/mainnet-0-4312.dat"));
    assert_eq!(blocks.len(), 4313);
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path(), 8 << 20).unwrap();
    let mut lane = store.lane("utxo-tracker").unwrap();
    lane.set_bulk_changes(500);
    for (height, block) in blocks.iter().enumerate() {
        connect(&mut lane, height as u32, block, height % 2 == 0);
        if height % 97 == 0 {
            lane.flush().unwrap();
        }
        let expected = match height {
            170 => (
                171,
                8_500,
                "b497ee695f714fb45632085fda981c5828816d0e181d55be45227654db948e30",
            ),
            255 => (
                260,
                12_750,
                "60e29020ee287387a5b311fa9d665e232d41fb14f6243342cf1bdd967cc82117",
            ),
            1_000 => (
                998,
                50_000,
                "96c396fb1d497fe3738ee204d73ea314680ba6529ccca5fe2023a600ce6a9cc7",
            ),
            4_312 => (
                4_149,
                215_600,
                "8ddda2747fb03d2bf57e08a23d4cab90f9e062c28bf5822760edc5238128a7e5",
            ),
            _ => continue,
        };
        let set = set(&mut lane);
        assert_eq!(
            (
                set.txouts,
                set.total_sats / 100_000_000,
                set.muhash.as_str()
            ),
            expected,
            "at {height}"
        );
        assert_eq!(
            (set.height, set.bestblock),
            (height as u32, block.block_hash().to_string())
        );
        if height == 255 {
            assert_eq!(
                set.hash_serialized_3,
                "507108bd18e2319f0a7102cfa1c7ffea10c9b1a47ff061d8098bc51a92e40241"
            );
        }
    }
}

#[test]
fn regtest_coins_hash_to_what_core_printed_and_rewind_with_a_reorg() {
    let Some(data) = data() else { return };
    let mut main = blocks(&data.join("regtest/main.dat"));
    assert_eq!(main.len(), 131);
    // The genesis block comes first in the file.
    main.remove(0);
    let branch = blocks(&data.join("regtest/branch.dat"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let store = StateStore::open(&path, 8 << 20).unwrap();
    let mut lane = store.lane("coins").unwrap();
    let at_124 = "ce8d7ef686cb5e4659d5211a62c480f7b475ad13d43f95e1720aad7fd90eb009";
    for (height, block) in (1..).zip(&main) {
        connect(&mut lane, height, block, height > 100);
        match height {
            101 => {
                let set = set(&mut lane);
                assert_eq!((set.txouts, set.total_sats), (400, 5_050 * 100_000_000));
                assert_eq!(
                    set.muhash,
                    "35c2767802270a5d0fc0083090f9bac0c6fcc60d7e6b595b279475a703a90330"
                );
            }
            124 => {
                let set = set(&mut lane);
                assert_eq!((set.txouts, set.total_sats), (13_860, 6_200 * 100_000_000));
                assert_eq!(set.muhash, at_124);
            }
            127 => lane.flush().unwrap(),
            _ => {}
        }
    }
    // 125 to 127 are undone from disk, 128 to 130 from memory.
    assert_eq!(lane.flushed_cursor().unwrap().height, 127);
    assert_eq!(lane.rewind(124).unwrap().unwrap().height, 124);
    let rewound = set(&mut lane);
    assert_eq!((rewound.muhash.as_str(), rewound.height), (at_124, 124));
    assert_eq!(rewound.bestblock, main[123].block_hash().to_string());

    for (height, block) in (125..).zip(&main[124..]) {
        connect(&mut lane, height, block, true);
    }
    let tip = set(&mut lane);
    assert_eq!((tip.txouts, tip.total_sats), (17_470, 6_500 * 100_000_000));
    assert_eq!(
        tip.muhash,
        "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e"
    );
    assert_eq!(
        tip.hash_serialized_3,
        "5698000273f33031dbef8e62c4dd942ff28045b8e7ca911424e4e9179b9cf052"
    );

    drop(lane);
    drop(store);
    let store = StateStore::open(&path, 8 << 20).unwrap();
    let mut lane = store.lane("coins").unwrap();
    assert_eq!(lane.cursor().unwrap().height, 130);
    lane.rewind(124).unwrap();
    for (height, block) in (125..).zip(&branch) {
        connect(&mut lane, height, block, true);
    }
    let after = set(&mut lane);
    assert_eq!(
        (after.height, after.txouts, after.total_sats),
        (132, 16_377, 6_600 * 100_000_000)
    );
    assert_eq!(
        after.muhash,
        "4f9e4e6f2dfac3ea10770abdde44160ecad39d96f819c92be3d8ecf9289312ea"
    );
    assert_eq!(
        after.hash_serialized_3,
        "10ee3deda43b5376c42476ad49cded34689ac2b91dfa6da7c1a76120c88f93a7"
    );

    let view = CoinView::new(store.snapshot("coins").unwrap().unwrap());
    assert_eq!(view.cursor(), lane.cursor());
    let coinbase = &branch.last().unwrap().txdata[0];
    let first = OutPointKey {
        txid: coinbase.compute_txid().to_byte_array(),
        vout: 0,
    };
    let script = coinbase.output[0].script_pubkey.to_bytes();
    let value = coinbase.output[0].value.to_sat();
    assert_eq!(
        view.coin(&first).unwrap(),
        Some(Coin {
            height: 132,
            coinbase: true,
            value,
            script
        })
    );
    let none = OutPointKey { vout: 99, ..first };
    assert_eq!(view.coins(&[none]).unwrap(), [None]);
}

#[test]
fn a_stopped_count_has_no_answer_and_neither_has_an_empty_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path(), 8 << 20).unwrap();
    let mut lane = store.lane("coins").unwrap();
    assert_eq!(txoutset(&lane.snapshot().unwrap(), |_| true).unwrap(), None);
    lane.begin_block();
    for vout in 0..5_000 {
        let mut value = Vec::new();
        encode_coin(1, false, 1, &[0x51; 300], &mut value);
        lane.put(
            &coin_key(&OutPointKey {
                txid: [7; 32],
                vout,
            }),
            &value,
        )
        .unwrap();
    }
    lane.commit_block(super::cursor(0, 0), false).unwrap();
    lane.flush().unwrap();
    let snapshot = lane.snapshot().unwrap();
    assert_eq!(txoutset(&snapshot, |_| false).unwrap(), None);
    assert_eq!(
        txoutset(&snapshot, |_| true).unwrap().unwrap().txouts,
        5_000
    );
}

#[test]
fn a_key_that_is_taken_twice_in_one_call_is_found_once() {
    // The check for a double spend inside a block rests on this.
    let folder = tempfile::tempdir().unwrap();
    let store = StateStore::open(folder.path(), 1 << 20).unwrap();
    let mut lane = store.lane("coins").unwrap();
    for flushed in [false, true] {
        lane.begin_block();
        lane.put(b"aa", b"coin").unwrap();
        if flushed {
            let height = lane.cursor().map_or(0, |cursor| cursor.height + 1);
            lane.commit_block(super::cursor(height, 0), true).unwrap();
            lane.flush().unwrap();
            lane.begin_block();
        }
        let mut found = ValueColumn::default();
        lane.take_many(Keys::fixed(2, b"aaaa"), &mut found).unwrap();
        assert_eq!(found.found, [1, 0], "flushed: {flushed}");
        assert_eq!(found.get(0), Some(b"coin".as_slice()));
        lane.abort_block();
    }
}
