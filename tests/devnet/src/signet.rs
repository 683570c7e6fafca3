//! Signing blocks of a signet (BIP325), with one key or none. Mining one takes some five million hashes: seconds, not milliseconds.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, sha256, sha256d};
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_RETURN};
use bitcoin::p2p::Magic;
use bitcoin::script::{Builder, PushBytesBuf, Script, ScriptBuf};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, merkle_tree,
};

/// What the push that holds a block's solution begins with.
const SOLUTION_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// Who may make blocks, and who does.
#[derive(Clone, Debug)]
pub struct Signet {
    challenge: ScriptBuf,
    signer: Option<SecretKey>,
}

impl Signet {
    /// Everybody may: the challenge is `OP_TRUE`.
    pub fn open() -> Self {
        Self {
            challenge: ScriptBuf::from_bytes(vec![0x51]),
            signer: None,
        }
    }

    /// The owner of a key that follows from the seed may: the challenge is `<key> OP_CHECKSIG`.
    pub fn of_key(seed: u64) -> Self {
        let signer = key(seed);
        let public = PublicKey::from_secret_key(&Secp256k1::signing_only(), &signer);
        let challenge = Builder::new()
            .push_slice(public.serialize())
            .push_opcode(OP_CHECKSIG)
            .into_script();
        Self {
            challenge,
            signer: Some(signer),
        }
    }

    /// The same network, where somebody signs who may not: with the key of another seed.
    #[must_use]
    pub fn forged_by(self, seed: u64) -> Self {
        Self {
            signer: Some(key(seed)),
            ..self
        }
    }

    /// What a block's solution has to meet.
    pub fn challenge(&self) -> &Script {
        &self.challenge
    }

    /// The magic that follows from the challenge.
    pub fn magic(&self) -> Magic {
        let hash = sha256d::Hash::hash(&serialize(&self.challenge)).to_byte_array();
        let [a, b, c, d, ..] = hash;
        Magic::from_bytes([a, b, c, d])
    }

    /// Puts a solution into the last output of the coinbase, the witness commitment, and the new root into the header. `None` for a block
    /// without a commitment.
    pub(crate) fn solve(&self, block: &mut Block) -> Option<()> {
        let Some(signer) = &self.signer else {
            return Some(());
        };
        let commitment = block
            .txdata
            .first()?
            .output
            .last()?
            .script_pubkey
            .to_bytes();
        // What is signed has the header of the solution in place of all of it.
        commit(block, &commitment, &SOLUTION_HEADER)?;
        let spending = self.spending(block)?;
        let hash = SighashCache::new(&spending)
            .legacy_signature_hash(0, &self.challenge, EcdsaSighashType::All.to_u32())
            .ok()?;
        let message = Message::from_digest(hash.to_byte_array());
        let signature = Secp256k1::signing_only().sign_ecdsa(&message, signer);
        let mut signature = signature.serialize_der().to_vec();
        signature.push(EcdsaSighashType::All as u8);
        let script_sig = Builder::new()
            .push_slice(PushBytesBuf::try_from(signature).ok()?)
            .into_script();
        let solution = [
            SOLUTION_HEADER.to_vec(),
            serialize(&script_sig),
            serialize(&Witness::new()),
        ];
        commit(block, &commitment, &solution.concat())
    }

    /// The transaction whose only input the solution signs: it spends one that commits to the block.
    fn spending(&self, block: &Block) -> Option<Transaction> {
        let header = &block.header;
        let mut data = header.version.to_consensus().to_le_bytes().to_vec();
        data.extend(header.prev_blockhash.to_byte_array());
        data.extend(header.merkle_root.to_byte_array());
        data.extend(header.time.to_le_bytes());
        let script_sig = Builder::new()
            .push_opcode(OP_0)
            .push_slice(PushBytesBuf::try_from(data).ok()?)
            .into_script();
        let to_spend = transaction(OutPoint::null(), script_sig, self.challenge.clone());
        let nothing = Builder::new().push_opcode(OP_RETURN).into_script();
        let spent = OutPoint::new(to_spend.compute_txid(), 0);
        Some(transaction(spent, ScriptBuf::new(), nothing))
    }
}

fn key(seed: u64) -> SecretKey {
    let bytes = [&b"devnet signet"[..], &seed.to_le_bytes()].concat();
    let mut hash = sha256::Hash::hash(&bytes);
    // Not every number is a key, but nearly every one.
    loop {
        match SecretKey::from_slice(hash.as_byte_array()) {
            Ok(key) => return key,
            Err(_) => hash = sha256::Hash::hash(hash.as_byte_array()),
        }
    }
}

fn transaction(spent: OutPoint, script_sig: ScriptBuf, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: spent,
            script_sig,
            sequence: Sequence::ZERO,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey,
        }],
    }
}

/// The commitment's script is `script` and a push of `solution`.
fn commit(block: &mut Block, script: &[u8], solution: &[u8]) -> Option<()> {
    let push = PushBytesBuf::try_from(solution.to_vec()).ok()?;
    let output = block.txdata.first_mut()?.output.last_mut()?;
    output.script_pubkey = Builder::from(script.to_vec())
        .push_slice(push)
        .into_script();
    let txids = block
        .txdata
        .iter()
        .map(|tx| tx.compute_txid().to_raw_hash());
    let root = merkle_tree::calculate_root(txids)?;
    block.header.merkle_root = TxMerkleNode::from_raw_hash(root);
    Some(())
}
