//! What operations on signatures cost, and what that does to an entry.

use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::*;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{Opcode, Script, ScriptBuf, Transaction, TxOut, Witness};

use super::super::sigops::cost;
use super::*;

fn ops(ops: &[Opcode]) -> ScriptBuf {
    let builder = ops.iter().fold(Builder::new(), |b, op| b.push_opcode(*op));
    builder.into_script()
}

fn push(scripts: &[&Script]) -> ScriptBuf {
    let builder = scripts.iter().fold(Builder::new(), |b, script| {
        b.push_slice(PushBytesBuf::try_from(script.to_bytes()).unwrap())
    });
    builder.into_script()
}

/// One input that spends `spent`, and one output.
fn tx(script_sig: &Script, witness: &[&[u8]], output: &Script) -> Transaction {
    let mut tx = spend(&[OutPoint::new(chain::made_up_txid(), 0)], &[90_000]);
    tx.input[0].script_sig = script_sig.into();
    tx.input[0].witness = Witness::from_slice(witness);
    tx.output[0].script_pubkey = output.into();
    tx
}

fn of(tx: &Transaction, spent: &Script) -> u64 {
    let ours = cost(tx, [spent].into_iter());
    let spent = TxOut {
        value: bitcoin::Amount::from_sat(1),
        script_pubkey: spent.into(),
    };
    let by_the_crate = tx.total_sigop_cost(|_| Some(spent.clone())) as u64;
    assert_eq!(ours, by_the_crate, "as the crate counts");
    ours
}

/// 1 of 2 keys.
fn multisig() -> ScriptBuf {
    let key = PushBytesBuf::try_from(vec![2; 33]).unwrap();
    Builder::new()
        .push_opcode(OP_PUSHNUM_1)
        .push_slice(&key)
        .push_slice(&key)
        .push_opcode(OP_PUSHNUM_2)
        .push_opcode(OP_CHECKMULTISIG)
        .into_script()
}

#[test]
fn each_kind_of_script_costs_what_core_counts() {
    let none = Script::new();
    let other = ops(&[OP_PUSHNUM_1]);
    // Core's `sigopcount_tests`: the cost of a multisignature in an output is that of twenty keys, times four.
    assert_eq!(of(&tx(none, &[], &multisig()), &other), 80);
    // In an input the script that is spent does not count, what is run before it does.
    assert_eq!(of(&tx(none, &[], none), &multisig()), 0);
    assert_eq!(of(&tx(&ops(&[OP_CHECKSIG]), &[], none), &other), 4);
    let p2pkh = ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::all_zeros());
    assert_eq!(of(&tx(none, &[], &p2pkh), &p2pkh), 4);
    // P2SH: two keys, times four; nothing in an output.
    let p2sh = multisig().to_p2sh();
    assert_eq!(of(&tx(&push(&[none, &multisig()]), &[], &p2sh), &p2sh), 8);
    // The witness programs of version 0, and a key that is not one.
    let p2wpkh = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros());
    let p2wsh = multisig().to_p2wsh();
    let stack: &[&[u8]] = &[&[], &[7; 71], &multisig().to_bytes()];
    assert_eq!(of(&tx(none, &[&[7; 71], &[2; 33]], &p2wpkh), &p2wpkh), 1);
    assert_eq!(of(&tx(none, stack, &p2wsh), &p2wsh), 2);
    assert_eq!(of(&tx(none, &[], none), &p2wsh), 0);
    // The same within P2SH.
    let nested = |program: &Script| tx(&push(&[program]), stack, none);
    assert_eq!(of(&nested(&p2wpkh), &p2wpkh.to_p2sh()), 1);
    assert_eq!(of(&nested(&p2wsh), &p2wsh.to_p2sh()), 2);
    // Versions 1 and 2 cost nothing here.
    for version in [OP_PUSHNUM_1, OP_PUSHNUM_2] {
        let mut program = ops(&[version]).into_bytes();
        program.extend([[32].as_slice(), &[9; 32]].concat());
        assert_eq!(
            of(&tx(none, stack, none), &ScriptBuf::from_bytes(program)),
            0
        );
    }
    // A script that does not end counts as far as it goes.
    let torn = ScriptBuf::from_bytes(vec![OP_CHECKSIG.to_u8(), 75, 1, OP_CHECKSIG.to_u8()]);
    assert_eq!(of(&tx(none, &[], &torn), &other), 4);
    assert_eq!(of(&tx(&push(&[&torn]), &[], none), &torn.to_p2sh()), 4);
}

#[test]
fn only_a_number_right_before_a_multisignature_says_how_many_keys_it_has() {
    // (witness script, operations) by Core's `GetSigOpCount`: any other operation between the two makes it twenty.
    for (script, expected) in [
        (ops(&[OP_PUSHNUM_3, OP_CHECKMULTISIG]), 3),
        (ops(&[OP_PUSHNUM_16, OP_CHECKMULTISIGVERIFY]), 16),
        (ops(&[OP_PUSHNUM_3, OP_CHECKMULTISIG, OP_CHECKMULTISIG]), 23),
        (ops(&[OP_PUSHNUM_3, OP_CHECKSIG, OP_CHECKMULTISIG]), 21),
        (ops(&[OP_PUSHNUM_3, OP_NOP, OP_CHECKMULTISIG]), 20),
        (ops(&[OP_PUSHNUM_NEG1, OP_CHECKMULTISIG]), 20),
        (ops(&[OP_PUSHBYTES_0, OP_CHECKMULTISIG]), 20),
        (ops(&[OP_CHECKMULTISIG]), 20),
    ] {
        let bytes = script.to_bytes();
        let spends = tx(Script::new(), &[&bytes], Script::new());
        let found = cost(&spends, [script.to_p2wsh().as_script()].into_iter());
        assert_eq!(found, expected, "{script}");
        // And in P2SH, where each costs four.
        let spends = tx(&push(&[&script]), &[], Script::new());
        let found = cost(&spends, [script.to_p2sh().as_script()].into_iter());
        assert_eq!(found, expected * 4, "{script}");
        // What does more than push is no spend of P2SH (Core: 0), and its own operations count.
        let mut more = vec![OP_CHECKSIG.to_u8()];
        more.extend(push(&[&script]).into_bytes());
        let spends = tx(&ScriptBuf::from_bytes(more), &[], Script::new());
        let found = cost(&spends, [script.to_p2sh().as_script()].into_iter());
        assert_eq!(found, 4, "{script}");
    }
}

/// So many operations in the outputs of a transaction, each of which costs four.
fn with_operations(coin: OutPoint, count: usize) -> Transaction {
    let mut tx = spend(&[coin], &[90_000]);
    tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![OP_CHECKSIG.to_u8(); count]);
    tx
}

#[test]
fn operations_count_in_the_size_from_where_they_are_more_than_the_weight() {
    let (mut pool, chain, coins) = setup(2);
    // 70 bytes and one for each operation: 20 weight units for each of its four are more from the first on.
    let tx = with_operations(coins[0], 10);
    enter(&mut pool, &chain, &tx);
    let entry = pool.get(&tx.compute_txid()).unwrap();
    assert_eq!(entry.sigop_cost, Some(40));
    assert_eq!(entry.weight, tx.weight().to_wu());
    assert_eq!(entry.vsize, 40 * 20 / 4);
    assert_eq!(pool.info(NOW).vbytes, 200);
    let light = with_operations(coins[1], 1);
    enter(&mut pool, &chain, &light);
    let entry = pool.get(&light.compute_txid()).unwrap();
    assert_eq!(
        (entry.sigop_cost, entry.vsize),
        (Some(4), light.vsize() as u64)
    );
    // A child's family has them too.
    let child = spend(&[pay(&tx)], &[10_000]);
    enter(&mut pool, &chain, &child);
    let entry = pool.get(&child.compute_txid()).unwrap();
    assert_eq!(entry.ancestors.vsize, 200 + child.vsize() as u64);
}

#[test]
fn a_fee_is_held_against_the_size_with_the_operations() {
    let (mut pool, chain, coins) = setup(1);
    // 1,000 operations: 20,000 vB, which cost 2,000 sat at 100 sat/kvB.
    let mut tx = with_operations(coins[0], 1_000);
    let mut offer_with = |fee: u64| {
        tx.output[0].value = bitcoin::Amount::from_sat(COIN - fee);
        offer(&mut pool, &chain, &tx)
    };
    assert!(matches!(
        offer_with(1_999),
        Err(Refused::LowFee { vsize: 20_000, .. })
    ));
    offer_with(2_000).unwrap();
}

#[test]
fn more_operations_than_are_standard_are_refused() {
    let (mut pool, chain, coins) = setup(1);
    // 4,000 of them cost 16,000.
    let over = with_operations(coins[0], 4_001);
    let refused = offer(&mut pool, &chain, &over).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "its signature operations cost 16004, more than the standard 16000"
    );
    assert!(refused.is_about_the_transaction() && !refused.is_reconsiderable());
    assert!(pool.knows_wtxid(&over.compute_wtxid()), "not fetched again");
    enter(&mut pool, &chain, &with_operations(coins[0], 4_000));
}

#[test]
fn scripts_of_unconfirmed_parents_count_as_those_of_coins_do() {
    let (mut pool, mut chain, coins) = setup(1);
    let script = multisig();
    let mut parent = spend(&coins, &[40_000, 40_000]);
    parent.output[1].script_pubkey = script.to_p2wsh();
    let mut child = spend(&[OutPoint::new(parent.compute_txid(), 1)], &[30_000]);
    child.input[0].witness = Witness::from_slice(&[&[][..], &[7; 71], &script.to_bytes()]);
    enter(&mut pool, &chain, &parent);
    enter(&mut pool, &chain, &child);
    let found = pool.get(&child.compute_txid()).unwrap();
    assert_eq!(found.sigop_cost, Some(2));
    // And when the parent is confirmed.
    chain.connect(vec![parent]);
    let mut fresh = Mempool::new(MempoolConfig::default());
    enter(&mut fresh, &chain, &child);
    let again = fresh.get(&child.compute_txid()).unwrap();
    assert_eq!((again.sigop_cost, again.vsize), (Some(2), found.vsize));
}

#[test]
fn a_chain_without_the_limit_counts_none() {
    let (_, chain, coins) = setup(1);
    let mut pool = Mempool::new(MempoolConfig {
        sigops: false,
        ..MempoolConfig::default()
    });
    let tx = with_operations(coins[0], 4_001);
    enter(&mut pool, &chain, &tx);
    let entry = pool.get(&tx.compute_txid()).unwrap();
    assert_eq!(
        (entry.sigop_cost, entry.vsize),
        (Some(0), tx.vsize() as u64)
    );
}

#[test]
fn a_saved_pool_has_its_operations_again() {
    let (mut pool, chain, coins) = setup(1);
    let tx = with_operations(coins[0], 10);
    enter(&mut pool, &chain, &tx);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mempool.dat");
    save(&path, [1; 4], &pool.snapshot()).unwrap();
    let mut again = Mempool::new(MempoolConfig::default());
    for (raw, seen) in load(&path, [1; 4]).unwrap() {
        again.reload(&raw, seen, NOW, &chain, chain.tip()).unwrap();
    }
    let entry = again.get(&tx.compute_txid()).unwrap();
    assert_eq!((entry.sigop_cost, entry.vsize), (Some(40), 200));
}
