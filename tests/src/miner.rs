//! A key that mined coins belong to, and payments from them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::script::PushBytesBuf;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, Block, Network, OutPoint, PrivateKey, PubkeyHash, PublicKey, ScriptBuf, Sequence,
    Transaction, TxIn, TxOut, Witness, absolute, transaction,
};

/// Blocks after which a mined coin may be spent, itself included (consensus `COINBASE_MATURITY`).
const MATURITY: u32 = 100;

/// One of our coins.
#[derive(Debug, Clone, Copy)]
struct Coin {
    value: Amount,
    height: u32,
    coinbase: bool,
}

/// One key with its p2pkh script, and the coins it owns in the blocks that were shown to it.
#[derive(Debug)]
pub struct Miner {
    secp: Secp256k1<All>,
    key: PrivateKey,
    public: PublicKey,
    script: ScriptBuf,
    coins: BTreeMap<OutPoint, Coin>,
    height: u32,
}

impl Miner {
    /// A miner whose key follows from `seed`.
    ///
    /// # Errors
    ///
    /// When `seed` is no key, which one in 2^128 is not.
    pub fn new(seed: u64, network: Network) -> Result<Self> {
        let secp = Secp256k1::new();
        let secret = bitcoin::hashes::sha256::Hash::hash(&seed.to_le_bytes());
        let secret =
            SecretKey::from_slice(secret.as_byte_array()).context("the seed gives no key")?;
        let key = PrivateKey::new(secret, network);
        let public = key.public_key(&secp);
        Ok(Self {
            script: ScriptBuf::new_p2pkh(&public.pubkey_hash()),
            secp,
            key,
            public,
            coins: BTreeMap::new(),
            height: 0,
        })
    }

    /// The hash of the key, which its p2pkh script and address hold.
    pub fn key_hash(&self) -> PubkeyHash {
        self.public.pubkey_hash()
    }

    /// The sum of the coins seen and not spent, ripe or not.
    pub fn balance(&self) -> Amount {
        self.coins.values().map(|coin| coin.value).sum()
    }

    /// Takes note of the block that follows the one seen last.
    pub fn see(&mut self, block: &Block) {
        self.height += 1;
        for transaction in &block.txdata {
            for input in &transaction.input {
                self.coins.remove(&input.previous_output);
            }
            let txid = transaction.compute_txid();
            for (vout, output) in (0..).zip(&transaction.output) {
                if output.script_pubkey == self.script {
                    let coin = Coin {
                        value: output.value,
                        height: self.height,
                        coinbase: transaction.is_coinbase(),
                    };
                    self.coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
    }

    /// A signed transaction that spends the oldest ripe coin back to the key, in `outputs` equal parts less `fee`. The coin is
    /// gone from then on.
    ///
    /// # Errors
    ///
    /// When no coin is ripe, or the oldest one is too small.
    pub fn split(&mut self, outputs: u64, fee: Amount) -> Result<Transaction> {
        let (outpoint, coin) = self
            .ripe()
            .min_by_key(|(outpoint, coin)| (coin.height, *outpoint))
            .context("no coin can be spent yet")?;
        self.spend(outpoint, coin, outputs, fee)
    }

    /// Signed transactions that spend the smallest ripe coins, one each, back to the key less `fee`: at most `count`.
    ///
    /// # Errors
    ///
    /// When one of them is smaller than the fee.
    pub fn pay_each(&mut self, count: usize, fee: Amount) -> Result<Vec<Transaction>> {
        let mut ripe: Vec<_> = self.ripe().collect();
        ripe.sort_unstable_by_key(|(outpoint, coin)| (coin.value, *outpoint));
        ripe.truncate(count);
        ripe.into_iter()
            .map(|(outpoint, coin)| self.spend(outpoint, coin, 1, fee))
            .collect()
    }

    /// The coins that the next block may spend.
    fn ripe(&self) -> impl Iterator<Item = (OutPoint, Coin)> {
        let next = self.height + 1;
        self.coins
            .iter()
            .filter(move |(_, coin)| !coin.coinbase || coin.height + MATURITY <= next)
            .map(|(outpoint, coin)| (*outpoint, *coin))
    }

    fn spend(
        &mut self,
        outpoint: OutPoint,
        coin: Coin,
        outputs: u64,
        fee: Amount,
    ) -> Result<Transaction> {
        let value = coin
            .value
            .checked_sub(fee)
            .context("the coin is smaller than the fee")?;
        let value = value
            .checked_div(outputs)
            .context("a payment needs an output")?;
        let output = TxOut {
            value,
            script_pubkey: self.script.clone(),
        };
        let mut transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: (0..outputs).map(|_| output.clone()).collect(),
        };
        let kind = EcdsaSighashType::All;
        let hash = SighashCache::new(&transaction)
            .legacy_signature_hash(0, &self.script, kind.to_u32())
            .context("failed to hash a transaction for its signature")?;
        let message = Message::from_digest(hash.to_byte_array());
        let signature = bitcoin::ecdsa::Signature {
            signature: self.secp.sign_ecdsa(&message, &self.key.inner),
            sighash_type: kind,
        };
        let signature =
            PushBytesBuf::try_from(signature.to_vec()).context("a signature is too long")?;
        let script_sig = ScriptBuf::builder()
            .push_slice(signature)
            .push_key(&self.public)
            .into_script();
        for input in &mut transaction.input {
            input.script_sig.clone_from(&script_sig);
        }
        self.coins.remove(&outpoint);
        Ok(transaction)
    }
}
