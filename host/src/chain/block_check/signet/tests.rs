#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use bitcoin::consensus::deserialize;
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Block, opcodes::Opcode as Op};

use super::*;
use crate::chain::block_check::{BlockContext, check_block};
use crate::chain::fixtures::{self, View, coinbase, commit, seal, spend};
use crate::network::{Network, Params};

/// The first two blocks of the default signet, which Bitcoin Core's own test (`feature_signet.py`) has too.
const BLOCKS: [&str; 2] = [
    "00000020f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000f575c83235984e7dc4afc1f30944c170462e84437ab6f2d52e16878a79e4678bd1914d5fae77031eccf4070001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025151feffffff0200f2052a010000001600149243f727dd5343293eb83174324019ec16c2630f0000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa2490047304402205e423a8754336ca99dbe16509b877ef1bf98d008836c725005b3c787c41ebe46022047246e4467ad7cc7f1ad98662afcaf14c115e0095a227c7b05c5182591c23e7e01000120000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000020533b53ded9bff4adc94101d32400a144c54edc5ed492a3b26c63b2d686000000b38fef50592017cfafbcab88eb3d9cf50b2c801711cad8299495d26df5e54812e7914d5fae77031ecfdd0b0001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025251feffffff0200f2052a01000000160014fd09839740f0e0b4fc6d5e2527e4022aa9b89dfa0000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa24900473044022031d64a1692cdad1fc0ced69838169fe19ae01be524d831b95fcf5ea4e6541c3c02204f9dea0801df8b4d0cd0857c62ab35c6c25cc47c930630dc7fe723531daa3e9b01000120000000000000000000000000000000000000000000000000000000000000000000000000",
];

fn context(params: &'static Params, height: u32) -> BlockContext {
    BlockContext {
        params,
        height,
        median_time_past: 1_500_000_000,
    }
}

fn refused() -> BadBlock {
    BadBlock::Invalid(Invalidity::Signet(
        "the solution does not meet the challenge",
    ))
}

#[test]
fn the_first_blocks_of_the_default_signet_are_solved() {
    for (height, hex) in (1..).zip(BLOCKS) {
        let raw = Vec::from_hex(hex).unwrap();
        let signet = Network::Signet.params();
        assert_eq!(
            check_block(&View::decode(&raw), &context(signet, height)),
            Ok(())
        );

        // With both keys asked for, one signature is not enough; and it signs no other block.
        let mut both = signet.signet_challenge.clone().unwrap();
        both[0] = 0x52;
        assert_eq!(check(&View::decode(&raw), &both), Err(refused()));
        let mut later: Block = deserialize(&raw).unwrap();
        later.header.time += 1;
        let challenge = signet.signet_challenge.as_ref().unwrap();
        assert_eq!(check(&View::new(later), challenge), Err(refused()));
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_slice(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> Vec<u8> {
    PublicKey::from_secret_key(&Secp256k1::new(), &key(seed))
        .serialize()
        .to_vec()
}

fn multisig(needed: u8, keys: &[u8]) -> Vec<u8> {
    let mut script = vec![0x50 + needed];
    for seed in keys {
        script.push(33);
        script.extend(public(*seed));
    }
    script.extend([0x50 + keys.len() as u8, 0xae]);
    script
}

fn single(seed: u8) -> Vec<u8> {
    [vec![33], public(seed), vec![0xac]].concat()
}

fn params(challenge: &[u8]) -> &'static Params {
    Box::leak(Box::new(Params {
        signet_challenge: Some(challenge.to_vec()),
        ..Network::Regtest.params().clone()
    }))
}

/// A block without a solution, its commitment ready for one.
fn unsolved() -> Block {
    let genesis = Network::Regtest.params().genesis_header;
    let mut block = fixtures::block(&genesis, vec![coinbase(20, 0), spend(1), spend(2)]);
    commit(&mut block);
    block
}

/// Solves the block: `solution` makes the script and the witness from the transaction that is signed.
fn solved(challenge: &[u8], solution: impl Fn(&Transaction) -> (Vec<u8>, Vec<Vec<u8>>)) -> Block {
    let mut block = unsolved();
    let commitment = block.txdata[0]
        .output
        .last()
        .unwrap()
        .script_pubkey
        .to_bytes();
    let put = |block: &mut Block, section: &[u8]| {
        let mut script = commitment.clone();
        push(&mut script, &[&HEADER, section].concat());
        block.txdata[0].output.last_mut().unwrap().script_pubkey = ScriptBuf::from_bytes(script);
        seal(block);
    };
    // The header alone stands for the solution while the block is signed.
    put(&mut block, &[]);
    let empty = Solution {
        leaf: [0; 32],
        script_sig: ScriptBuf::new(),
        witness: Witness::new(),
    };
    let root = block.header.merkle_root.to_byte_array();
    let (script_sig, witness) = solution(&empty.spending(challenge, &block.header, root));
    let section = [
        serialize(&script_sig),
        serialize(&Witness::from_slice(&witness)),
    ]
    .concat();
    put(&mut block, &section);
    block
}

fn sign(seed: u8, digest: [u8; 32]) -> Vec<u8> {
    let signature = Secp256k1::new().sign_ecdsa(&Message::from_digest(digest), &key(seed));
    [signature.serialize_der().to_vec(), vec![1]].concat()
}

fn legacy(spending: &Transaction, script: &[u8]) -> [u8; 32] {
    SighashCache::new(spending)
        .legacy_signature_hash(0, Script::from_bytes(script), 1)
        .unwrap()
        .to_byte_array()
}

fn verdict(challenge: &[u8], block: Block) -> Result<(), BadBlock> {
    check_block(&View::new(block), &context(params(challenge), 20))
}

/// Signs a plain script with these keys, in this order.
fn plain(challenge: &[u8], dummy: bool, seeds: &[u8]) -> Result<(), BadBlock> {
    let block = solved(challenge, |spending| {
        let mut script = if dummy { vec![0] } else { Vec::new() };
        for seed in seeds {
            push(&mut script, &sign(*seed, legacy(spending, challenge)));
        }
        (script, Vec::new())
    });
    verdict(challenge, block)
}

#[test]
fn signatures_of_the_right_keys_in_the_right_order_solve() {
    let one = single(1);
    assert_eq!(plain(&one, false, &[1]), Ok(()));
    assert_eq!(plain(&one, false, &[2]), Err(refused()));
    assert_eq!(plain(&one, false, &[]), Err(refused()));

    let two_of_three = multisig(2, &[1, 2, 3]);
    for (seeds, solves) in [
        ([1, 2], true),
        ([1, 3], true),
        ([2, 3], true),
        ([2, 1], false),
        ([1, 1], false),
        ([1, 4], false),
    ] {
        assert_eq!(
            plain(&two_of_three, true, &seeds).is_ok(),
            solves,
            "{seeds:?}"
        );
    }
    // Without the item too many there is nothing to sign with.
    assert_eq!(plain(&two_of_three, false, &[1, 2]), Err(refused()));
    assert_eq!(verdict(&two_of_three, unsolved()), Err(refused()));
}

#[test]
fn challenges_behind_a_witness_hash_are_checked_too() {
    let code = multisig(1, &[1, 2]);
    let challenge = [
        vec![0, 32],
        sha256::Hash::hash(&code).to_byte_array().to_vec(),
    ]
    .concat();
    let by = |seed: u8, code: Vec<u8>| {
        let block = solved(&challenge, |spending| {
            let digest = SighashCache::new(spending)
                .p2wsh_signature_hash(
                    0,
                    Script::from_bytes(&code),
                    Amount::ZERO,
                    EcdsaSighashType::All,
                )
                .unwrap()
                .to_byte_array();
            (
                Vec::new(),
                vec![Vec::new(), sign(seed, digest), code.clone()],
            )
        });
        verdict(&challenge, block)
    };
    assert_eq!(by(2, code.clone()), Ok(()));
    assert_eq!(by(3, code), Err(refused()));
    assert_eq!(by(3, multisig(1, &[3, 2])), Err(refused()));

    let challenge = [
        vec![0, 20],
        hash160::Hash::hash(&public(5)).to_byte_array().to_vec(),
    ]
    .concat();
    for (seed, solves) in [(5, true), (6, false)] {
        let block = solved(&challenge, |spending| {
            let digest = SighashCache::new(spending)
                .p2wpkh_signature_hash(
                    0,
                    Script::from_bytes(&challenge),
                    Amount::ZERO,
                    EcdsaSighashType::All,
                )
                .unwrap()
                .to_byte_array();
            (Vec::new(), vec![sign(seed, digest), public(seed)])
        });
        assert_eq!(verdict(&challenge, block).is_ok(), solves);
    }
}

#[test]
fn a_challenge_that_is_not_understood_is_known_as_such() {
    assert!(!Challenge::of(&[0x52, 0x87]).is_checked());
    // An output of BIP341: Core does not run it for a challenge either.
    assert_eq!(
        Challenge::of(&[[0x51, 0x20].as_slice(), &[7; 32]].concat()),
        Challenge::Other
    );
    assert_eq!(verdict(&[0x52, 0x87], unsolved()), Ok(()));
    assert_eq!(Challenge::of(&[0x51]), Challenge::True);
    assert_eq!(verdict(&[0x51], unsolved()), Ok(()));
    assert!(
        Challenge::of(Network::Signet.params().signet_challenge.as_ref().unwrap()).is_checked()
    );
    // More signatures than keys, or numbers that are not there, make no challenge of keys.
    let mut wrong = multisig(2, &[1]);
    assert_eq!(Challenge::of(&wrong), Challenge::Other);
    wrong[0] = Op::from(0x61).to_u8();
    assert_eq!(Challenge::of(&wrong), Challenge::Other);
}

#[test]
fn a_solution_that_cannot_be_read_is_refused() {
    let challenge = single(1);
    let mut block = unsolved();
    block.txdata[0].output.pop();
    block.txdata[0].input[0].witness.clear();
    seal(&mut block);
    let why = verdict(&challenge, block).unwrap_err().to_string();
    assert!(why.contains("there is no witness commitment"), "{why}");

    let mut block = unsolved();
    let output = block.txdata[0].output.last_mut().unwrap();
    let mut script = output.script_pubkey.to_bytes();
    push(&mut script, &[&HEADER[..], &[0, 0, 7]].concat());
    output.script_pubkey = ScriptBuf::from_bytes(script);
    seal(&mut block);
    let why = verdict(&challenge, block).unwrap_err().to_string();
    assert!(why.contains("bytes left over"), "{why}");
}
