//! The solution of a signet block (BIP325): a signature over the block, kept in the witness commitment's output.
//!
//! Scripts are not run here. The challenges that are in use are a key or some of several keys, plain or behind a witness hash,
//! and for these the signatures are checked as the script would. For any other challenge [`Challenge::is_checked`] says no, and
//! the proof of work and the peers have to vouch for the block.

use std::sync::LazyLock;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize_partial, serialize};
use bitcoin::hashes::{Hash, hash160, sha256};
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_PUSHNUM_1, OP_PUSHNUM_16, OP_RETURN,
};
use bitcoin::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};

use super::{BadBlock, BlockView, COMMITMENT_PREFIX, Invalidity, Mutation};

/// What the push that holds the solution begins with.
const HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// A challenge, as far as it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// `OP_TRUE`: every block is a solution.
    True,
    /// Signatures of keys, by the script itself.
    Keys(Keys),
    /// The same behind a witness script hash (BIP141).
    ScriptHash([u8; 32]),
    /// One signature behind a witness public key hash.
    KeyHash([u8; 20]),
    /// Another script. It is not run.
    Other,
}

/// So many signatures of these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Signatures that are needed.
    needed: usize,
    /// The keys as the script has them.
    keys: Vec<Vec<u8>>,
    /// `OP_CHECKMULTISIG`, which takes one item more than it uses.
    multisig: bool,
}

impl Challenge {
    /// What kind of challenge a script is.
    pub fn of(script: &[u8]) -> Challenge {
        match script {
            [0x51] => Challenge::True,
            [0x00, 0x20, hash @ ..] if hash.len() == 32 => match hash.try_into() {
                Ok(hash) => Challenge::ScriptHash(hash),
                Err(_) => Challenge::Other,
            },
            [0x00, 0x14, hash @ ..] if hash.len() == 20 => match hash.try_into() {
                Ok(hash) => Challenge::KeyHash(hash),
                Err(_) => Challenge::Other,
            },
            script => {
                Keys::of(Script::from_bytes(script)).map_or(Challenge::Other, Challenge::Keys)
            }
        }
    }

    /// Whether blocks are checked against it. A witness script that is none of the known ones shows only in a block.
    pub fn is_checked(&self) -> bool {
        !matches!(self, Challenge::Other)
    }
}

impl Keys {
    /// Reads `<key> OP_CHECKSIG` and `m <key>… n OP_CHECKMULTISIG`.
    fn of(script: &Script) -> Option<Keys> {
        let parts: Vec<_> = script.instructions().collect::<Result<_, _>>().ok()?;
        let key = |part: &Instruction<'_>| {
            let bytes = part.push_bytes()?.as_bytes();
            matches!(bytes.len(), 33 | 65).then(|| bytes.to_vec())
        };
        match parts.as_slice() {
            [only, Instruction::Op(OP_CHECKSIG)] => Some(Keys {
                needed: 1,
                keys: vec![key(only)?],
                multisig: false,
            }),
            [
                Instruction::Op(needed),
                keys @ ..,
                Instruction::Op(count),
                Instruction::Op(OP_CHECKMULTISIG),
            ] => {
                let (needed, count) = (small_number(*needed)?, small_number(*count)?);
                let keys = keys.iter().map(key).collect::<Option<Vec<_>>>()?;
                (keys.len() == count && needed <= count).then_some(Keys {
                    needed,
                    keys,
                    multisig: true,
                })
            }
            _ => None,
        }
    }

    /// Whether the items on the stack meet the script. `digest` is the hash that a signature with this type signs.
    fn met_by(&self, stack: &[Vec<u8>], digest: impl Fn(u8) -> Option<[u8; 32]>) -> bool {
        let Some(first) = stack.len().checked_sub(self.needed) else {
            return false;
        };
        let (below, signatures) = stack.split_at(first);
        if self.multisig && below.last().is_none_or(|dummy| !dummy.is_empty()) {
            // BIP147: the item too many must be empty.
            return false;
        }
        // Each signature is tried against the keys after the one that the signature before it met.
        let mut keys = self.keys.iter();
        signatures
            .iter()
            .all(|signature| keys.any(|key| signed(signature, key, &digest)))
    }
}

fn small_number(op: Opcode) -> Option<usize> {
    let (one, sixteen) = (OP_PUSHNUM_1.to_u8(), OP_PUSHNUM_16.to_u8());
    let op = op.to_u8();
    (one..=sixteen)
        .contains(&op)
        .then(|| usize::from(op - one) + 1)
}

fn signed(signature: &[u8], key: &[u8], digest: impl Fn(u8) -> Option<[u8; 32]>) -> bool {
    static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);
    let Some((kind, der)) = signature.split_last() else {
        return false;
    };
    let (Ok(mut signature), Ok(key)) =
        (ecdsa::Signature::from_der(der), PublicKey::from_slice(key))
    else {
        return false;
    };
    // A high S is no fault by consensus, but the library knows only low ones.
    signature.normalize_s();
    digest(*kind).is_some_and(|digest| {
        SECP.verify_ecdsa(&Message::from_digest(digest), &signature, &key)
            .is_ok()
    })
}

/// A block's solution, and its coinbase without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// The txid of the coinbase whose commitment has lost the solution: the first leaf of the tree that is signed.
    pub leaf: [u8; 32],
    script_sig: ScriptBuf,
    witness: Witness,
}

impl Solution {
    /// Takes the solution out of a block's coinbase, the first transaction of the view. An empty one where there is none.
    ///
    /// # Errors
    /// When the coinbase has no witness commitment, or the solution cannot be read.
    pub fn of(block: &impl BlockView) -> Result<Solution, BadBlock> {
        let bad = |what| BadBlock::Invalid(Invalidity::Signet(what));
        let mut coinbase = Transaction {
            version: Version(block.version(0).cast_signed()),
            lock_time: LockTime::from_consensus(block.lock_time(0)),
            input: block
                .inputs(0)
                .map(|input| TxIn {
                    previous_output: OutPoint {
                        txid: Txid::from_byte_array(*block.prev_txid(input)),
                        vout: block.prev_vout(input),
                    },
                    script_sig: ScriptBuf::from_bytes(block.script_sig(input).to_vec()),
                    sequence: Sequence(block.sequence(input)),
                    witness: Witness::new(),
                })
                .collect(),
            output: block
                .outputs(0)
                .map(|output| TxOut {
                    value: Amount::from_sat(block.value(output)),
                    script_pubkey: ScriptBuf::from_bytes(block.script_pubkey(output).to_vec()),
                })
                .collect(),
        };
        let output = coinbase
            .output
            .iter_mut()
            .rev()
            .find(|output| {
                let script = output.script_pubkey.as_bytes();
                script.len() >= 38 && script.starts_with(&COMMITMENT_PREFIX)
            })
            .ok_or(bad("there is no witness commitment"))?;
        let mut solution = None;
        if let Some((without, found)) = split(&output.script_pubkey) {
            output.script_pubkey = without;
            solution = Some(found);
        }
        let (script_sig, witness) = match solution {
            None => (ScriptBuf::new(), Witness::new()),
            Some(bytes) => {
                let (script_sig, used) = deserialize_partial::<ScriptBuf>(&bytes)
                    .map_err(|_| bad("the solution cannot be read"))?;
                let rest = bytes.get(used..).unwrap_or_default();
                let (witness, used) = deserialize_partial::<Witness>(rest)
                    .map_err(|_| bad("the solution cannot be read"))?;
                if used != rest.len() {
                    return Err(bad("the solution has bytes left over"));
                }
                (script_sig, witness)
            }
        };
        Ok(Solution {
            leaf: coinbase.compute_txid().to_byte_array(),
            script_sig,
            witness,
        })
    }

    /// Whether this solves `challenge` for a block with this header, whose transactions hash to `root` with
    /// [`leaf`](Self::leaf) in place of the coinbase. What is not understood counts as solved.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, challenge: &[u8], header: &Header, root: [u8; 32]) -> Result<(), BadBlock> {
        let solved = match Challenge::of(challenge) {
            Challenge::True => self.script_sig.is_empty() && self.witness.is_empty(),
            Challenge::Other => true,
            known => {
                let spending = self.spending(challenge, header, root);
                self.meets(&known, Script::from_bytes(challenge), &spending)
            }
        };
        match solved {
            true => Ok(()),
            false => Err(BadBlock::Invalid(Invalidity::Signet(
                "the solution does not meet the challenge",
            ))),
        }
    }

    /// The transaction whose only input the solution signs (BIP325).
    fn spending(&self, challenge: &[u8], header: &Header, root: [u8; 32]) -> Transaction {
        let mut data = Vec::with_capacity(72);
        data.extend_from_slice(&header.version.to_consensus().to_le_bytes());
        data.extend_from_slice(&serialize(&header.prev_blockhash));
        data.extend_from_slice(&root);
        data.extend_from_slice(&header.time.to_le_bytes());
        let mut script_sig = Builder::new().push_opcode(bitcoin::opcodes::OP_0);
        if let Ok(data) = PushBytesBuf::try_from(data) {
            script_sig = script_sig.push_slice(data);
        }
        let input = |previous_output, script_sig, witness| TxIn {
            previous_output,
            script_sig,
            sequence: Sequence::ZERO,
            witness,
        };
        let output = |script_pubkey| TxOut {
            value: Amount::ZERO,
            script_pubkey,
        };
        let to_spend = Transaction {
            version: Version(0),
            lock_time: LockTime::ZERO,
            input: vec![input(
                OutPoint::null(),
                script_sig.into_script(),
                Witness::new(),
            )],
            output: vec![output(ScriptBuf::from_bytes(challenge.to_vec()))],
        };
        Transaction {
            version: Version(0),
            lock_time: LockTime::ZERO,
            input: vec![input(
                OutPoint::new(to_spend.compute_txid(), 0),
                self.script_sig.clone(),
                self.witness.clone(),
            )],
            output: vec![output(Builder::new().push_opcode(OP_RETURN).into_script())],
        }
    }

    fn meets(&self, challenge: &Challenge, script: &Script, spending: &Transaction) -> bool {
        let witness: Vec<Vec<u8>> = self.witness.iter().map(<[u8]>::to_vec).collect();
        match challenge {
            Challenge::Keys(keys) => {
                let legacy = |kind: u8| {
                    SighashCache::new(spending)
                        .legacy_signature_hash(0, script, u32::from(kind))
                        .ok()
                        .map(|hash| hash.to_byte_array())
                };
                // A witness where none is asked for is a fault of its own (BIP141).
                witness.is_empty()
                    && pushes(&self.script_sig).is_some_and(|stack| keys.met_by(&stack, legacy))
            }
            Challenge::KeyHash(hash) => {
                let [signature, key] = witness.as_slice() else {
                    return false;
                };
                let code = ScriptBuf::from_bytes(script.to_bytes());
                let digest = |kind: u8| {
                    SighashCache::new(spending)
                        .p2wpkh_signature_hash(0, &code, Amount::ZERO, sighash(kind)?)
                        .ok()
                        .map(|hash| hash.to_byte_array())
                };
                self.script_sig.is_empty()
                    && hash160::Hash::hash(key).to_byte_array() == *hash
                    && key.len() == 33
                    && signed(signature, key, digest)
            }
            Challenge::ScriptHash(hash) => {
                let Some((code, stack)) = witness.split_last() else {
                    return false;
                };
                if !self.script_sig.is_empty() || sha256::Hash::hash(code).to_byte_array() != *hash
                {
                    return false;
                }
                let code = Script::from_bytes(code);
                let Some(keys) = Keys::of(code) else {
                    // Another script behind the hash: not run, as any other challenge.
                    return true;
                };
                let digest = |kind: u8| {
                    SighashCache::new(spending)
                        .p2wsh_signature_hash(0, code, Amount::ZERO, sighash(kind)?)
                        .ok()
                        .map(|hash| hash.to_byte_array())
                };
                // Behind a witness hash nothing may be left on the stack.
                stack.len() == keys.needed + usize::from(keys.multisig)
                    && keys.met_by(stack, digest)
            }
            Challenge::True | Challenge::Other => true,
        }
    }
}

fn sighash(kind: u8) -> Option<EcdsaSighashType> {
    EcdsaSighashType::from_standard(u32::from(kind)).ok()
}

/// What a script that only pushes leaves on the stack.
fn pushes(script: &Script) -> Option<Vec<Vec<u8>>> {
    script
        .instructions()
        .map(|part| Some(part.ok()?.push_bytes()?.as_bytes().to_vec()))
        .collect()
}

/// A commitment's script without the solution, and the solution. The push that held it keeps its first four bytes; everything
/// is pushed again as Bitcoin Core would, since it is what Core hashes.
fn split(script: &Script) -> Option<(ScriptBuf, Vec<u8>)> {
    let mut without = Vec::with_capacity(script.len());
    let mut found = None;
    for part in script.instructions() {
        match part {
            Ok(Instruction::PushBytes(bytes)) if !bytes.is_empty() => {
                let bytes = bytes.as_bytes();
                match bytes.strip_prefix(&HEADER) {
                    Some(solution) if found.is_none() && !solution.is_empty() => {
                        found = Some(solution.to_vec());
                        push(&mut without, &HEADER);
                    }
                    _ => push(&mut without, bytes),
                }
            }
            Ok(Instruction::PushBytes(_)) => without.push(0),
            Ok(Instruction::Op(op)) => without.push(op.to_u8()),
            Err(_) => break,
        }
    }
    found.map(|solution| (ScriptBuf::from_bytes(without), solution))
}

fn push(script: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ ..0x4c => script.push(length as u8),
        length @ ..0x100 => script.extend([0x4c, length as u8]),
        length => {
            script.push(0x4d);
            script.extend((length as u16).to_le_bytes());
        }
    }
    script.extend_from_slice(bytes);
}

/// Checks a whole block's solution against the chain's challenge.
pub(super) fn check(block: &impl BlockView, challenge: &[u8]) -> Result<(), BadBlock> {
    if !Challenge::of(challenge).is_checked() {
        return Ok(());
    }
    let solution = Solution::of(block)?;
    let leaves =
        std::iter::once(solution.leaf).chain((1..block.tx_count()).map(|tx| block.txid(tx)));
    let root = super::merkle_root(leaves.collect());
    if root.duplicated_pair {
        return Err(BadBlock::Mutated(Mutation::DuplicatedPair));
    }
    solution.check(challenge, block.header(), root.root)
}

#[cfg(test)]
mod tests;
