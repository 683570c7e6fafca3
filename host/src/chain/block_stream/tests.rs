#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Witness};

use super::*;
use crate::chain::block_check::check_block;
use crate::chain::fixtures::{self, View, coinbase, commit, seal, spend};
use crate::network::{Network, Params};

fn context(network: Network, height: u32) -> BlockContext {
    BlockContext {
        params: network.params(),
        height,
        median_time_past: 1_600_000_000,
    }
}

fn streamed(raw: &[u8], context: BlockContext) -> Result<Passed, BadBlock> {
    let mut stream = BlockStream::new(context, raw.len() as u64, 4_000_000);
    for piece in raw.chunks(3_001) {
        match stream.push(piece) {
            Ok(()) => {}
            Err(StreamError::Bad(bad)) => return Err(bad),
            Err(other) => panic!("{other}"),
        }
    }
    stream.finish()
}

/// The verdict on the block as a whole and in pieces, which must be the same.
fn verdict(block: &Block) -> Result<(), BadBlock> {
    let context = context(Network::Regtest, 20);
    let whole = check_block(&View::new(block.clone()), &context);
    let stream = streamed(&serialize(block), context).map(|passed| {
        assert_eq!(passed.transactions, block.txdata.len() as u64);
        assert_eq!(passed.weight, block.weight().to_wu());
    });
    assert_eq!(stream, whole);
    whole
}

fn good() -> Block {
    let genesis = Network::Regtest.params().genesis_header;
    let mut second = spend(1);
    second.input[0].witness = Witness::from_slice(&[[1u8; 64]]);
    let mut transactions = vec![coinbase(20, 0), second];
    transactions.extend((2..200).map(spend));
    let mut block = fixtures::block(&genesis, transactions);
    commit(&mut block);
    block
}

#[test]
fn a_block_in_pieces_gets_the_verdict_of_the_whole_one() {
    assert_eq!(verdict(&good()), Ok(()));
    let mut plain = good();
    plain.txdata[1].input[0].witness = Witness::new();
    plain.txdata[0].input[0].witness = Witness::new();
    plain.txdata[0].output.pop();
    seal(&mut plain);
    assert_eq!(verdict(&plain), Ok(()));

    type Change = fn(&mut Block);
    let sealed: [(Change, Invalidity); 9] = [
        (|block| block.txdata[0] = spend(77), Invalidity::NoCoinbase),
        (
            |block| block.txdata[150] = coinbase(20, 9),
            Invalidity::SecondCoinbase(150),
        ),
        (
            |block| block.txdata[0] = coinbase(21, 0),
            Invalidity::CoinbaseHeight(20),
        ),
        (
            |block| block.txdata[3].output.clear(),
            Invalidity::NoOutputs(3),
        ),
        (
            |block| {
                block.txdata[170].output[0].value =
                    bitcoin::Amount::from_sat(22_000_000 * 100_000_000)
            },
            Invalidity::Value(170),
        ),
        (
            |block| {
                let input = block.txdata[9].input[0].clone();
                block.txdata[9].input.push(input);
            },
            Invalidity::DuplicateInput(9),
        ),
        (
            |block| {
                block.txdata[9].input.push(coinbase(20, 1).input[0].clone());
            },
            Invalidity::NullInput(9),
        ),
        (
            |block| {
                block.txdata[120].lock_time = bitcoin::absolute::LockTime::from_consensus(20);
                block.txdata[120].input[0].sequence = bitcoin::Sequence::ZERO;
            },
            Invalidity::NotFinal(120),
        ),
        (
            |block| block.txdata[0].input[0].script_sig = [1, 20, 1].repeat(50).into(),
            Invalidity::CoinbaseScript(150),
        ),
    ];
    for (change, invalidity) in sealed {
        let mut block = plain.clone();
        change(&mut block);
        seal(&mut block);
        assert_eq!(verdict(&block), Err(BadBlock::Invalid(invalidity)));
        // The same block under the old header is only mutated, whatever rule it breaks.
        block.header = plain.header;
        assert_eq!(
            verdict(&block),
            Err(BadBlock::Mutated(Mutation::MerkleRoot))
        );
    }
}

#[test]
fn mutations_are_found_in_pieces_too() {
    let mutated = |mutation| Err(BadBlock::Mutated(mutation));
    let mut twice = good();
    let last = twice.txdata[199].clone();
    // 200 leaves: the rows above pair up evenly until 25, whose last one is paired with itself.
    let tail: Vec<_> = twice.txdata[192..].to_vec();
    twice.txdata.extend(tail);
    assert_eq!(verdict(&twice), mutated(Mutation::DuplicatedPair));
    let mut other = good();
    other.txdata.push(last);
    assert_eq!(verdict(&other), mutated(Mutation::MerkleRoot));

    let mut witness = good();
    witness.txdata[1].input[0].witness = Witness::from_slice(&[[2u8; 64]]);
    assert_eq!(verdict(&witness), mutated(Mutation::WitnessCommitment));
    let mut reserved = good();
    reserved.txdata[0].input[0].witness = Witness::from_slice(&[[0u8; 31]]);
    assert_eq!(verdict(&reserved), mutated(Mutation::WitnessReserved));
    let mut unexpected = good();
    unexpected.txdata[0].output.pop();
    unexpected.txdata[0].input[0].witness = Witness::new();
    seal(&mut unexpected);
    assert_eq!(
        verdict(&unexpected),
        mutated(Mutation::UnexpectedWitness(1))
    );

    let raw = serialize(&good());
    let context = context(Network::Regtest, 20);
    assert_eq!(
        streamed(&raw[..raw.len() - 1], context).map(|_| ()),
        mutated(Mutation::Undecodable)
    );
}

#[test]
fn real_blocks_pass_in_pieces() {
    for (name, network, height) in [
        ("blocks/mainnet-367891.raw", Network::Mainnet, 367_891),
        ("blocks/mainnet-413567.raw", Network::Mainnet, 413_567),
        ("blocks/mainnet-800000.raw", Network::Mainnet, 800_000),
        ("blocks/testnet3-924634.raw", Network::Testnet3, 924_634),
    ] {
        let Some(raw) = fixtures::bytes(name) else {
            continue;
        };
        let block: Block = deserialize(&raw).unwrap();
        let context = BlockContext {
            params: network.params(),
            height,
            median_time_past: block.header.time - 1,
        };
        let passed = streamed(&raw, context).unwrap();
        assert_eq!(passed.weight, block.weight().to_wu());
    }
}

#[test]
fn a_chain_without_segregated_witness_has_a_size_and_no_weight() {
    let params: &'static Params = Box::leak(Box::new(Params {
        segwit: false,
        segwit_height: u32::MAX,
        max_block_sizes: vec![(0, 5_000), (20, 8_000_000)],
        ..Network::Regtest.params().clone()
    }));
    let genesis = params.genesis_header;
    let mut transactions = vec![coinbase(20, 0)];
    let mut large = spend(1);
    large.output[0].script_pubkey = vec![0x6a; 5_000_000].into();
    transactions.extend([large, spend(2)]);
    let block = fixtures::block(&genesis, transactions);
    let raw = serialize(&block);
    for (height, large_enough) in [(20, true), (19, false)] {
        let context = BlockContext {
            params,
            height,
            median_time_past: 1_600_000_000,
        };
        let whole = check_block(&View::decode(&raw), &context);
        let mut stream = BlockStream::new(context, raw.len() as u64, 6_000_000);
        raw.chunks(100_000)
            .for_each(|piece| stream.push(piece).unwrap());
        assert_eq!(stream.finish().map(|_| ()), whole);
        match whole {
            Err(BadBlock::Invalid(Invalidity::TooLarge { limit: 5_000, .. })) => {
                assert!(!large_enough)
            }
            other => assert_eq!((other, large_enough), (Ok(()), true)),
        }
    }
    // A transaction that is too long to be held is no fault of the block.
    let context = BlockContext {
        params,
        height: 20,
        median_time_past: 1_600_000_000,
    };
    let mut stream = BlockStream::new(context, raw.len() as u64, 1_000_000);
    let ends = raw
        .chunks(100_000)
        .find_map(|piece| stream.push(piece).err());
    assert!(matches!(ends, Some(StreamError::TransactionTooLong(_))));
}
