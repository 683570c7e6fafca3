//! Keys, the scripts that pay to them, and signatures.

use std::collections::HashMap;
use std::fmt;

use bitcoin::ecdsa;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak, TweakedKeypair};
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_2, OP_PUSHNUM_3};
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot;
use bitcoin::{PublicKey, Transaction, TxOut, Witness};
use rand::Rng;

/// Keys of a wallet.
const KEYS: usize = 48;

/// Kinds of output script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    P2wpkh,
    P2tr,
    P2pkh,
    P2shP2wpkh,
    /// Two of three keys.
    P2wsh,
}

pub const KINDS: [Kind; 5] = [
    Kind::P2wpkh,
    Kind::P2tr,
    Kind::P2pkh,
    Kind::P2shP2wpkh,
    Kind::P2wsh,
];

impl Kind {
    /// Weight units of an input of this kind with signatures at their longest.
    fn input_weight(self) -> u64 {
        match self {
            Self::P2wpkh => 272,
            Self::P2tr => 230,
            Self::P2pkh => 593,
            Self::P2shP2wpkh => 364,
            Self::P2wsh => 418,
        }
    }
}

struct Key {
    secret: SecretKey,
    public: PublicKey,
    tweaked: TweakedKeypair,
    /// `2 <this> <next> <the one after> 3 OP_CHECKMULTISIG`.
    multisig: ScriptBuf,
}

pub struct Signer {
    secp: Secp256k1<All>,
    keys: Vec<Key>,
    scripts: HashMap<ScriptBuf, (usize, Kind)>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Signer {
    pub fn new(rng: &mut impl Rng) -> Self {
        let secp = Secp256k1::new();
        let mut secrets = Vec::new();
        while secrets.len() < KEYS {
            let mut bytes = [0_u8; 32];
            rng.fill_bytes(&mut bytes);
            secrets.extend(SecretKey::from_slice(&bytes));
        }
        let publics: Vec<PublicKey> = secrets
            .iter()
            .map(|secret| PublicKey::new(secret.public_key(&secp)))
            .collect();
        let keys: Vec<Key> = secrets
            .iter()
            .zip(&publics)
            .enumerate()
            .map(|(at, (secret, public))| {
                let multisig = publics
                    .iter()
                    .cycle()
                    .skip(at)
                    .take(3)
                    .fold(Builder::new().push_opcode(OP_PUSHNUM_2), Builder::push_key)
                    .push_opcode(OP_PUSHNUM_3)
                    .push_opcode(OP_CHECKMULTISIG)
                    .into_script();
                let tweaked = Keypair::from_secret_key(&secp, secret).tap_tweak(&secp, None);
                Key {
                    secret: *secret,
                    public: *public,
                    tweaked,
                    multisig,
                }
            })
            .collect();
        let mut signer = Self {
            secp,
            keys,
            scripts: HashMap::new(),
        };
        for at in 0..signer.len() {
            for kind in KINDS {
                signer.scripts.insert(signer.script(at, kind), (at, kind));
            }
        }
        signer
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn owns(&self, script: &ScriptBuf) -> bool {
        self.scripts.contains_key(script)
    }

    /// The script of a kind that pays to a key; an empty one when there is no such key.
    pub fn script(&self, at: usize, kind: Kind) -> ScriptBuf {
        let Some(key) = self.keys.get(at) else {
            return ScriptBuf::new();
        };
        match kind {
            Kind::P2wpkh => wpkh(&key.public),
            Kind::P2tr => {
                let (output_key, _) = key.tweaked.public_parts();
                ScriptBuf::new_p2tr_tweaked(output_key)
            }
            Kind::P2pkh => ScriptBuf::new_p2pkh(&key.public.pubkey_hash()),
            Kind::P2shP2wpkh => ScriptBuf::new_p2sh(&wpkh(&key.public).script_hash()),
            Kind::P2wsh => ScriptBuf::new_p2wsh(&key.multisig.wscript_hash()),
        }
    }

    /// Weight units of an input that spends this script; 0 for a script of somebody else.
    pub fn input_weight(&self, script: &ScriptBuf) -> u64 {
        self.scripts
            .get(script)
            .map_or(0, |(_, kind)| kind.input_weight())
    }

    /// Signs every input. `None` when an output is not ours.
    pub fn sign(&self, tx: &mut Transaction, spent: &[TxOut]) -> Option<()> {
        let mut signed = Vec::with_capacity(spent.len());
        let mut cache = SighashCache::new(&*tx);
        for (at, output) in spent.iter().enumerate() {
            signed.push(self.unlock(&mut cache, at, output, spent)?);
        }
        for (input, (script_sig, witness)) in tx.input.iter_mut().zip(signed) {
            input.script_sig = script_sig;
            input.witness = witness;
        }
        Some(())
    }

    fn unlock(
        &self,
        cache: &mut SighashCache<&Transaction>,
        at: usize,
        output: &TxOut,
        spent: &[TxOut],
    ) -> Option<(ScriptBuf, Witness)> {
        let (place, kind) = *self.scripts.get(&output.script_pubkey)?;
        let key = self.keys.get(place)?;
        let all = EcdsaSighashType::All;
        let wpkh_script = wpkh(&key.public);
        let wpkh_witness = |cache: &mut SighashCache<&Transaction>| {
            let hash = cache
                .p2wpkh_signature_hash(at, &wpkh_script, output.value, all)
                .ok()?;
            let signature = self.ecdsa(hash.to_byte_array(), key);
            Some(Witness::p2wpkh(&signature, &key.public.inner))
        };
        match kind {
            Kind::P2wpkh => Some((ScriptBuf::new(), wpkh_witness(cache)?)),
            Kind::P2shP2wpkh => {
                let redeem = PushBytesBuf::try_from(wpkh_script.to_bytes()).ok()?;
                let script_sig = Builder::new().push_slice(redeem).into_script();
                Some((script_sig, wpkh_witness(cache)?))
            }
            Kind::P2pkh => {
                let script = &output.script_pubkey;
                let hash = cache.legacy_signature_hash(at, script, all.to_u32()).ok()?;
                let signature = self.ecdsa(hash.to_byte_array(), key);
                let script_sig = Builder::new()
                    .push_slice(signature.serialize())
                    .push_key(&key.public)
                    .into_script();
                Some((script_sig, Witness::new()))
            }
            Kind::P2wsh => {
                let hash = cache
                    .p2wsh_signature_hash(at, &key.multisig, output.value, all)
                    .ok()?;
                let second = self.keys.get((place + 1) % self.len())?;
                let mut witness = Witness::new();
                // The extra element that OP_CHECKMULTISIG takes off the stack.
                witness.push([]);
                witness.push_ecdsa_signature(&self.ecdsa(hash.to_byte_array(), key));
                witness.push_ecdsa_signature(&self.ecdsa(hash.to_byte_array(), second));
                witness.push(&key.multisig);
                Some((ScriptBuf::new(), witness))
            }
            Kind::P2tr => {
                let sighash_type = TapSighashType::Default;
                let hash = cache
                    .taproot_key_spend_signature_hash(at, &Prevouts::All(spent), sighash_type)
                    .ok()?;
                let message = Message::from_digest(hash.to_byte_array());
                let keypair = key.tweaked.to_keypair();
                let signature = self.secp.sign_schnorr_no_aux_rand(&message, &keypair);
                let signature = taproot::Signature {
                    signature,
                    sighash_type,
                };
                Some((ScriptBuf::new(), Witness::p2tr_key_spend(&signature)))
            }
        }
    }

    fn ecdsa(&self, hash: [u8; 32], key: &Key) -> ecdsa::Signature {
        ecdsa::Signature {
            signature: self
                .secp
                .sign_ecdsa(&Message::from_digest(hash), &key.secret),
            sighash_type: EcdsaSighashType::All,
        }
    }
}

/// `0 <hash of the key>`. Our keys are compressed, as segwit asks.
fn wpkh(key: &PublicKey) -> ScriptBuf {
    match key.wpubkey_hash() {
        Ok(hash) => ScriptBuf::new_p2wpkh(&hash),
        Err(_) => Builder::new().push_opcode(OP_0).into_script(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::sha256;
    use bitcoin::script::Instruction;
    use bitcoin::secp256k1::XOnlyPublicKey;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, Sequence, TxIn, Txid};
    use rand::SeedableRng;

    /// One input of every kind, signed.
    fn signed(signer: &Signer) -> (Transaction, Vec<TxOut>) {
        let spent: Vec<TxOut> = (1..)
            .zip(KINDS)
            .map(|(at, kind)| TxOut {
                value: Amount::from_sat(1_000 * u64::try_from(at).unwrap()),
                script_pubkey: signer.script(at, kind),
            })
            .collect();
        let input = (0..5).map(|vout| TxIn {
            previous_output: OutPoint {
                txid: Txid::all_zeros(),
                vout,
            },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        });
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: vec![spent[0].clone()],
        };
        signer.sign(&mut tx, &spent).unwrap();
        (tx, spent)
    }

    #[test]
    fn what_unlocks_each_kind_hashes_to_what_locked_it_and_its_signature_verifies() {
        let signer = Signer::new(&mut rand_chacha::ChaCha8Rng::seed_from_u64(5));
        let (tx, spent) = signed(&signer);
        let mut cache = SighashCache::new(&tx);
        let all = EcdsaSighashType::All;
        for (at, output) in spent.iter().enumerate() {
            let script = &output.script_pubkey;
            let witness: Vec<&[u8]> = tx.input[at].witness.iter().collect();
            let pushes: Vec<&[u8]> = tx.input[at]
                .script_sig
                .instructions()
                .map(|one| match one.unwrap() {
                    Instruction::PushBytes(push) => push.as_bytes(),
                    Instruction::Op(code) => panic!("{code} in a script of pushes"),
                })
                .collect();
            // The digest that was signed, the signature, and the key.
            let (digest, signature, key) = match KINDS[at] {
                Kind::P2tr => {
                    let hash = cache
                        .taproot_key_spend_signature_hash(
                            at,
                            &Prevouts::All(&spent),
                            TapSighashType::Default,
                        )
                        .unwrap();
                    let key = XOnlyPublicKey::from_slice(&script.as_bytes()[2..]).unwrap();
                    let signature = taproot::Signature::from_slice(witness[0])
                        .unwrap()
                        .signature;
                    let message = Message::from_digest(hash.to_byte_array());
                    signer
                        .secp
                        .verify_schnorr(&signature, &message, &key)
                        .unwrap();
                    continue;
                }
                Kind::P2pkh => {
                    let hash = cache
                        .legacy_signature_hash(at, script, all.to_u32())
                        .unwrap();
                    let key = PublicKey::from_slice(pushes[1]).unwrap();
                    assert_eq!(*script, ScriptBuf::new_p2pkh(&key.pubkey_hash()));
                    (hash.to_byte_array(), pushes[0], pushes[1])
                }
                kind @ (Kind::P2wpkh | Kind::P2shP2wpkh) => {
                    let program = wpkh(&PublicKey::from_slice(witness[1]).unwrap());
                    if kind == Kind::P2wpkh {
                        assert_eq!(*script, program);
                    } else {
                        assert_eq!(pushes, [program.as_bytes()]);
                        assert_eq!(*script, ScriptBuf::new_p2sh(&program.script_hash()));
                    }
                    let hash = cache
                        .p2wpkh_signature_hash(at, &program, output.value, all)
                        .unwrap();
                    (hash.to_byte_array(), witness[0], witness[1])
                }
                Kind::P2wsh => {
                    let inner = ScriptBuf::from_bytes(witness[3].to_vec());
                    assert_eq!(script.as_bytes()[2..], sha256::Hash::hash(witness[3])[..]);
                    let keys: Vec<_> = inner
                        .instructions()
                        .filter_map(|one| one.unwrap().push_bytes().map(|push| push.to_owned()))
                        .collect();
                    assert_eq!(keys.len(), 3);
                    let hash = cache
                        .p2wsh_signature_hash(at, &inner, output.value, all)
                        .unwrap();
                    for (signature, key) in witness[1..3].iter().zip(&keys) {
                        verify(&signer, hash.to_byte_array(), signature, key.as_bytes());
                    }
                    continue;
                }
            };
            verify(&signer, digest, signature, key);
        }
    }

    fn verify(signer: &Signer, digest: [u8; 32], signature: &[u8], key: &[u8]) {
        let signature = ecdsa::Signature::from_slice(signature).unwrap();
        let key = PublicKey::from_slice(key).unwrap();
        let message = Message::from_digest(digest);
        signer
            .secp
            .verify_ecdsa(&message, &signature.signature, &key.inner)
            .unwrap();
    }

    #[test]
    fn input_weights_are_what_signed_inputs_weigh_at_most() {
        let signer = Signer::new(&mut rand_chacha::ChaCha8Rng::seed_from_u64(6));
        let (tx, spent) = signed(&signer);
        for (input, output) in tx.input.iter().zip(&spent) {
            let weight = input.segwit_weight().to_wu();
            let estimate = signer.input_weight(&output.script_pubkey);
            assert!(
                (weight..=weight + 10).contains(&estimate),
                "{weight} {estimate}"
            );
        }
        assert_eq!(signer.input_weight(&ScriptBuf::new()), 0);
    }
}
