#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use std::time::Instant;

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use super::*;
use crate::chain::fixtures::{self, View, coinbase, commit, seal, spend};
use crate::chain::header_tree::HeaderTree;
use crate::network::Network;

const HEIGHT: u32 = 20;

/// A valid block with a witness: what each test breaks in one place.
fn good() -> Block {
    let genesis = Network::Regtest.params().genesis_header;
    let mut second = spend(1);
    second.input[0].witness = Witness::from_slice(&[[1u8; 64]]);
    let mut block = fixtures::block(
        &genesis,
        vec![coinbase(HEIGHT, 0), second, spend(2), spend(3)],
    );
    commit(&mut block);
    block
}

/// The same without witnesses.
fn plain() -> Block {
    let genesis = Network::Regtest.params().genesis_header;
    fixtures::block(
        &genesis,
        vec![coinbase(HEIGHT, 0), spend(1), spend(2), spend(3)],
    )
}

fn context() -> BlockContext {
    BlockContext {
        params: Network::Regtest.params(),
        height: HEIGHT,
        median_time_past: 1_600_000_000,
    }
}

fn check(block: &Block) -> Result<(), BadBlock> {
    check_block(&View::new(block.clone()), &context())
}

/// Changes a block, puts its merkle root right, and says what the checks say.
fn broken(change: impl FnOnce(&mut Block)) -> BadBlock {
    let mut block = plain();
    change(&mut block);
    seal(&mut block);
    check(&block).unwrap_err()
}

fn mutated(mutation: Mutation) -> BadBlock {
    BadBlock::Mutated(mutation)
}

fn invalid(invalidity: Invalidity) -> BadBlock {
    BadBlock::Invalid(invalidity)
}

fn accept(raw: &[u8], network: Network, height: u32) {
    let view = View::decode(raw);
    let context = BlockContext {
        params: network.params(),
        height,
        median_time_past: view.header().time - 1,
    };
    let started = Instant::now();
    assert_eq!(check_block(&view, &context), Ok(()), "height {height}");
    println!(
        "height {height}: {} transactions in {:?}",
        view.tx_count(),
        started.elapsed()
    );
}

#[test]
fn real_blocks_are_accepted() {
    for (name, network, height) in [
        ("blocks/mainnet-91722.raw", Network::Mainnet, 91_722),
        ("blocks/mainnet-91880.raw", Network::Mainnet, 91_880),
        ("blocks/mainnet-367891.raw", Network::Mainnet, 367_891),
        ("blocks/mainnet-413567.raw", Network::Mainnet, 413_567),
        ("blocks/mainnet-800000.raw", Network::Mainnet, 800_000),
        ("blocks/testnet3-924634.raw", Network::Testnet3, 924_634),
    ] {
        if let Some(raw) = fixtures::bytes(name) {
            accept(&raw, network, height);
        }
    }
}

#[test]
fn block_91880_is_the_bip30_exception_that_the_parameters_name() {
    let Some(raw) = fixtures::bytes("blocks/mainnet-91880.raw") else {
        return;
    };
    let hash = View::decode(&raw).header().block_hash();
    assert!(Network::Mainnet.params().is_bip30_exception(91_880, &hash));
}

fn accept_chain(name: &str, tree: &mut HeaderTree) {
    let Some(blocks) = fixtures::blocks(name) else {
        return;
    };
    for raw in blocks {
        let view = View::decode(&raw);
        let header = *view.header();
        tree.insert(header, u64::MAX).unwrap();
        let height = tree.height_of(&header.block_hash()).unwrap();
        if height == 0 {
            continue;
        }
        let median_time_past = tree.median_time(&header.prev_blockhash).unwrap();
        let context = BlockContext {
            params: tree.params(),
            height,
            median_time_past,
        };
        assert_eq!(check_block(&view, &context), Ok(()), "height {height}");
        tree.mark_checked(&header.block_hash());
    }
}

#[test]
fn the_regtest_chain_and_its_heavier_branch_are_accepted() {
    let mut tree = HeaderTree::new(Network::Regtest.params());
    accept_chain("regtest/main.dat", &mut tree);
    if fixtures::path("regtest/main.dat").is_some() {
        let hash = "1a5c58e1336efe6d979fb9ffa77714c8c9979ca9ba1de8e44cec231075fc5dc8"
            .parse()
            .unwrap();
        assert_eq!(tree.tip(), (130, hash));
    }
    accept_chain("regtest/branch.dat", &mut tree);
    if fixtures::path("regtest/branch.dat").is_some() {
        let hash = "14d7bfd71eed2bc3a9823a5d6e53271dffef5da8021ef818649af79ac0088e59"
            .parse()
            .unwrap();
        assert_eq!(tree.tip(), (132, hash));
    }
}

#[test]
fn the_first_blocks_of_mainnet_are_accepted() {
    let mut tree = HeaderTree::new(Network::Mainnet.params());
    accept_chain("blocks/mainnet-0-4312.dat", &mut tree);
    if fixtures::path("blocks/mainnet-0-4312.dat").is_some() {
        assert_eq!(tree.tip().0, 4312);
    }
}

#[test]
fn the_blocks_that_the_tests_break_are_good() {
    assert_eq!(check(&good()), Ok(()));
    assert_eq!(check(&plain()), Ok(()));
}

#[test]
fn transactions_that_the_header_does_not_commit_to_make_a_mutated_block() {
    let mut block = good();
    block.txdata.pop();
    assert_eq!(check(&block), Err(mutated(Mutation::MerkleRoot)));
    block.txdata.clear();
    block.header.merkle_root = plain().header.merkle_root;
    assert_eq!(
        check_merkle(&View::new(block)),
        Err(mutated(Mutation::MerkleRoot))
    );
}

#[test]
fn a_repeated_pair_makes_a_mutated_block_and_does_not_condemn_its_header() {
    let mut block = plain();
    block.txdata.truncate(3);
    seal(&mut block);
    let honest = block.clone();
    block.txdata.push(block.txdata[2].clone());
    assert_eq!(block.header, honest.header);
    let error = check(&block).unwrap_err();
    assert_eq!(error, mutated(Mutation::DuplicatedPair));
    assert!(!error.condemns());
    assert_eq!(check(&honest), Ok(()));
}

#[test]
fn the_repeated_pairs_of_real_blocks_are_noticed() {
    for name in ["blocks/mainnet-413567.raw", "blocks/mainnet-367891.raw"] {
        let Some(raw) = fixtures::bytes(name) else {
            continue;
        };
        let mut block: Block = bitcoin::consensus::deserialize(&raw).unwrap();
        // The tail that the tree pairs with itself: as long as the lowest bit of the count.
        let count = block.txdata.len();
        let tail = 1 << count.trailing_zeros();
        block.txdata.extend_from_within(count - tail..);
        let error = check_merkle(&View::new(block)).unwrap_err();
        assert_eq!(error, mutated(Mutation::DuplicatedPair), "{name}");
    }
}

#[test]
fn sixty_four_bytes_in_place_of_two_hashes_make_a_mutated_block() {
    // An inner row of a real tree, passed off as the transactions.
    let mut fake = spend(0);
    fake.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(fake.base_size(), 64);
    let error = broken(|block| block.txdata = vec![fake.clone(), spend(1)]);
    assert_eq!(error, mutated(Mutation::SixtyFourBytes));
    assert!(!error.condemns());
    // Behind a real coinbase such a transaction is valid, as in Core.
    let mut block = plain();
    block.txdata.push(fake);
    seal(&mut block);
    assert_eq!(check(&block), Ok(()));
}

#[test]
fn a_changed_witness_makes_a_mutated_block() {
    let mut block = good();
    block.txdata[1].input[0].witness = Witness::from_slice(&[[2u8; 64]]);
    let error = check(&block).unwrap_err();
    assert_eq!(error, mutated(Mutation::WitnessCommitment));
    assert!(!error.condemns());
}

#[test]
fn a_changed_reserved_value_makes_a_mutated_block() {
    for witness in [
        Witness::new(),
        Witness::from_slice(&[[0u8; 31]]),
        Witness::from_slice(&[[0u8; 33]]),
        Witness::from_slice(&[[0u8; 32], [0u8; 32]]),
    ] {
        let mut block = good();
        block.txdata[0].input[0].witness = witness;
        assert_eq!(check(&block), Err(mutated(Mutation::WitnessReserved)));
    }
    let mut block = good();
    block.txdata[0].input[0].witness = Witness::from_slice(&[[1u8; 32]]);
    assert_eq!(check(&block), Err(mutated(Mutation::WitnessCommitment)));
}

#[test]
fn a_witness_that_nothing_commits_to_makes_a_mutated_block() {
    let mut block = plain();
    block.txdata[2].input[0].witness = Witness::from_slice(&[[1u8; 64]]);
    assert_eq!(check(&block), Err(mutated(Mutation::UnexpectedWitness(2))));
    // Before segregated witness a commitment means nothing.
    let params = Params {
        segwit_height: HEIGHT + 1,
        ..Network::Regtest.params().clone()
    };
    let context = BlockContext {
        params: Box::leak(Box::new(params)),
        ..context()
    };
    let error = check_block(&View::new(good()), &context).unwrap_err();
    assert_eq!(error, mutated(Mutation::UnexpectedWitness(0)));
}

#[test]
fn the_last_commitment_counts() {
    let mut block = good();
    let mut script = block.txdata[0].output[1].script_pubkey.to_bytes();
    script[10] ^= 1;
    let other = TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    };
    block.txdata[0].output.insert(1, other.clone());
    seal(&mut block);
    assert_eq!(check(&block), Ok(()));
    block.txdata[0].output.push(other);
    seal(&mut block);
    assert_eq!(check(&block), Err(mutated(Mutation::WitnessCommitment)));
}

#[test]
fn a_block_without_transactions_is_invalid() {
    let error = broken(|block| block.txdata.clear());
    assert_eq!(error, invalid(Invalidity::Empty));
    assert!(error.condemns());
}

#[test]
fn a_block_of_more_than_a_million_bytes_without_witnesses_is_invalid() {
    let big = |length: usize| {
        let mut block = plain();
        block.txdata[1].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; length]);
        seal(&mut block);
        block
    };
    let rest = big(100_000).total_size() - 100_000;
    assert_eq!(check(&big(1_000_000 - rest)), Ok(()));
    assert_eq!(
        check(&big(1_000_001 - rest)),
        Err(invalid(Invalidity::Size(1_000_001)))
    );
}

#[test]
fn a_block_of_more_than_four_million_weight_units_is_invalid() {
    let big = |length: usize| {
        let mut block = plain();
        block.txdata[1].input[0].witness = Witness::from_slice(&[vec![1u8; length]]);
        commit(&mut block);
        block
    };
    let rest = usize::try_from(big(1_000_000).weight().to_wu()).unwrap() - 1_000_000;
    assert_eq!(check(&big(4_000_000 - rest)), Ok(()));
    let error = check(&big(4_000_001 - rest)).unwrap_err();
    assert_eq!(error, invalid(Invalidity::Weight(4_000_001)));
    assert!(error.condemns());
}

#[test]
fn a_coinbase_padded_by_a_relayer_is_mutated_and_not_overweight() {
    let mut block = good();
    block.txdata[0].input[0].witness = Witness::from_slice(&[vec![0u8; 4_000_000]]);
    assert_eq!(check(&block), Err(mutated(Mutation::WitnessReserved)));
}

#[test]
fn a_block_that_does_not_begin_with_a_coinbase_is_invalid() {
    assert_eq!(
        broken(|block| block.txdata.swap(0, 1)),
        invalid(Invalidity::NoCoinbase)
    );
    assert_eq!(
        broken(|block| block.txdata[0].input[0].previous_output.vout = 0),
        invalid(Invalidity::NoCoinbase)
    );
}

#[test]
fn a_second_coinbase_is_invalid() {
    assert_eq!(
        broken(|block| block.txdata[2] = coinbase(HEIGHT, 9)),
        invalid(Invalidity::SecondCoinbase(2))
    );
}

#[test]
fn a_coinbase_script_has_2_to_100_bytes() {
    for (length, valid) in [(0, false), (1, false), (2, true), (100, true), (101, false)] {
        let mut block = plain();
        // Height 20 takes two bytes.
        let script = [&[1, 20][..], &[0; 120]].concat();
        block.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(script[..length].to_vec());
        seal(&mut block);
        let expected = if valid {
            Ok(())
        } else {
            Err(invalid(Invalidity::CoinbaseScript(length)))
        };
        assert_eq!(check(&block), expected);
    }
}

#[test]
fn a_coinbase_begins_with_its_height() {
    let error = broken(|block| block.txdata[0] = coinbase(HEIGHT + 1, 0));
    assert_eq!(error, invalid(Invalidity::CoinbaseHeight(HEIGHT)));
    // Before BIP34 it may say anything.
    let params = Params {
        bip34_height: HEIGHT + 1,
        ..Network::Regtest.params().clone()
    };
    let context = BlockContext {
        params: Box::leak(Box::new(params)),
        ..context()
    };
    let mut block = plain();
    block.txdata[0] = coinbase(HEIGHT + 1, 0);
    seal(&mut block);
    assert_eq!(check_block(&View::new(block), &context), Ok(()));
}

#[test]
fn heights_are_pushed_as_script_pushes_them() {
    assert_eq!(height_script(1), [0x51]);
    assert_eq!(height_script(16), [0x60]);
    assert_eq!(height_script(17), [1, 17]);
    assert_eq!(height_script(128), [2, 128, 0]);
    assert_eq!(height_script(227_931), [3, 0x5b, 0x7a, 0x03]);
}

fn without_inputs() -> Transaction {
    Transaction {
        input: Vec::new(),
        ..spend(0)
    }
}

#[test]
fn a_transaction_without_inputs_or_outputs_is_invalid() {
    assert_eq!(
        broken(|block| block.txdata[2] = without_inputs()),
        invalid(Invalidity::NoInputs(2))
    );
    assert_eq!(
        broken(|block| block.txdata[3].output.clear()),
        invalid(Invalidity::NoOutputs(3))
    );
}

#[test]
fn values_out_of_range_are_invalid() {
    let with = |values: &[u64]| {
        let mut block = plain();
        block.txdata[1].output = values
            .iter()
            .map(|value| TxOut {
                value: Amount::from_sat(*value),
                script_pubkey: ScriptBuf::new(),
            })
            .collect();
        seal(&mut block);
        check(&block)
    };
    assert_eq!(with(&[MAX_MONEY]), Ok(()));
    assert_eq!(with(&[MAX_MONEY + 1]), Err(invalid(Invalidity::Value(1))));
    // A negative value, as two's complement.
    assert_eq!(with(&[u64::MAX]), Err(invalid(Invalidity::Value(1))));
    assert_eq!(with(&[MAX_MONEY, 0]), Ok(()));
    assert_eq!(with(&[MAX_MONEY, 1]), Err(invalid(Invalidity::ValueSum(1))));
}

#[test]
fn an_output_spent_twice_in_a_transaction_is_invalid() {
    let error = broken(|block| {
        let inputs: Vec<TxIn> = [5, 6, 7, 5]
            .iter()
            .map(|n| spend(*n).input[0].clone())
            .collect();
        block.txdata[1].input = inputs;
    });
    assert_eq!(error, invalid(Invalidity::DuplicateInput(1)));
}

#[test]
fn spending_the_null_output_is_invalid() {
    let error = broken(|block| {
        let null = TxIn {
            previous_output: OutPoint::null(),
            ..block.txdata[1].input[0].clone()
        };
        block.txdata[1].input.push(null);
    });
    assert_eq!(error, invalid(Invalidity::NullInput(1)));
}

#[test]
fn a_locktime_that_has_not_passed_is_invalid() {
    let with = |lock_time: u32, sequence: Sequence| {
        let mut block = plain();
        block.txdata[3].lock_time = LockTime::from_consensus(lock_time);
        block.txdata[3].input[0].sequence = sequence;
        seal(&mut block);
        check(&block)
    };
    let not_final = Err(invalid(Invalidity::NotFinal(3)));
    let median = context().median_time_past;
    for (lock_time, passed) in [
        (HEIGHT - 1, true),
        (HEIGHT, false),
        (median - 1, true),
        (median, false),
    ] {
        let expected = if passed { Ok(()) } else { not_final.clone() };
        assert_eq!(
            with(lock_time, Sequence::ENABLE_LOCKTIME_NO_RBF),
            expected,
            "{lock_time}"
        );
        assert_eq!(with(lock_time, Sequence::MAX), Ok(()));
    }
    // Before BIP113 the block's own time counted.
    let params = Params {
        csv_height: HEIGHT + 1,
        ..Network::Regtest.params().clone()
    };
    let context = BlockContext {
        params: Box::leak(Box::new(params)),
        ..context()
    };
    let mut block = plain();
    let time = block.header.time;
    assert!(time < median);
    block.txdata[3].lock_time = LockTime::from_consensus(time);
    block.txdata[3].input[0].sequence = Sequence::ZERO;
    seal(&mut block);
    assert_eq!(
        check_block(&View::new(block), &context),
        Err(invalid(Invalidity::NotFinal(3)))
    );
}
