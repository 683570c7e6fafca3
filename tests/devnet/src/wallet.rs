//! The wallet that writes the network's transactions: keys from a seed, every output kind in the proportions of the real
//! chain, real signatures.

mod purse;
mod signer;

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use purse::Purse;
use signer::{Kind, Signer};

/// Outputs below this many sat are not made; it is above the dust limit of every kind.
const SMALLEST_OUTPUT: u64 = 1_000;
/// With fewer coins than this the wallet prefers payments with many outputs.
const POOR: usize = 400;
/// Random picks before a payment gives up finding an input.
const PICKS: usize = 200;
/// Signals that the transaction may be replaced (BIP125), and keeps BIP68 out.
const REPLACEABLE: Sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;

/// Keys, and the outpoints that they can probably spend.
#[derive(Debug)]
pub struct Wallet {
    rng: ChaCha8Rng,
    signer: Signer,
    purse: Purse,
}

impl Wallet {
    /// The wallet of a seed: the same seed, asked the same things, writes the same transactions.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let signer = Signer::new(&mut rng);
        Self {
            rng,
            signer,
            purse: Purse::default(),
        }
    }

    /// The random numbers of the seed, for what else must be decided by it.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// A script for a coinbase to pay to.
    pub fn reward_script(&mut self) -> ScriptBuf {
        self.script(Kind::P2wpkh)
    }

    /// Remembers the outputs of a transaction that this wallet can spend.
    pub fn take_notice(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for (vout, output) in (0_u32..).zip(&tx.output) {
            self.notice_output(OutPoint { txid, vout }, output);
        }
    }

    /// Remembers one output if this wallet can spend it.
    pub fn notice_output(&mut self, outpoint: OutPoint, output: &TxOut) {
        if self.signer.owns(&output.script_pubkey) {
            self.purse.insert(outpoint);
        }
    }

    /// Forgets what a transaction made.
    pub fn forget_outputs(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for (vout, _) in (0_u32..).zip(&tx.output) {
            self.purse.remove(&OutPoint { txid, vout });
        }
    }

    /// Forgets what a transaction spends.
    pub fn forget_inputs(&mut self, tx: &Transaction) {
        for input in &tx.input {
            self.purse.remove(&input.previous_output);
        }
    }

    /// Writes a payment from random coins for which `spendable` gives the output, valid in blocks above `height`.
    /// `None` when no coins were found. Coins that `spendable` denies are left in the purse: they may become so again.
    pub fn pay(
        &mut self,
        height: u32,
        spendable: impl Fn(&OutPoint) -> Option<TxOut>,
    ) -> Option<Transaction> {
        let wanted = match self.rng.random_range(0..100_u32) {
            0..62 => 1,
            62..86 => 2,
            86..96 => 3,
            _ => self.rng.random_range(4..8_usize),
        };
        // Some people spend at once what they were just paid, which makes chains of unconfirmed transactions.
        let hurry = self.rng.random_bool(0.15);
        let mut inputs: Vec<(OutPoint, TxOut)> = Vec::new();
        for _ in 0..PICKS {
            if inputs.len() == wanted {
                break;
            }
            let outpoint = match hurry && inputs.is_empty() {
                true => self.purse.pick_recent(&mut self.rng)?,
                false => self.purse.pick(&mut self.rng)?,
            };
            if inputs.iter().any(|(known, _)| *known == outpoint) {
                continue;
            }
            if let Some(output) = spendable(&outpoint) {
                inputs.push((outpoint, output));
            }
        }
        self.write(&inputs, height, None)
    }

    /// Writes a payment that spends exactly these coins at a fee rate (sat per 1,000 weight units) of at least `rate`.
    pub fn pay_from(
        &mut self,
        inputs: &[(OutPoint, TxOut)],
        height: u32,
        rate: u64,
    ) -> Option<Transaction> {
        if inputs
            .iter()
            .any(|(_, output)| !self.signer.owns(&output.script_pubkey))
        {
            return None;
        }
        self.write(inputs, height, Some(rate))
    }

    fn write(
        &mut self,
        inputs: &[(OutPoint, TxOut)],
        height: u32,
        rate: Option<u64>,
    ) -> Option<Transaction> {
        if inputs.is_empty() {
            return None;
        }
        let total = inputs
            .iter()
            .map(|(_, output)| output.value.to_sat())
            .sum::<u64>();
        let mut scripts = self.output_scripts(total);
        let note = self.rng.random_bool(0.06).then(|| self.note());
        let rate = rate.unwrap_or_else(|| self.fee_rate());
        let input_weight = inputs
            .iter()
            .map(|(_, output)| self.signer.input_weight(&output.script_pubkey))
            .sum::<u64>();
        let values = loop {
            let weight =
                50 + input_weight + scripts.iter().chain(&note).map(output_weight).sum::<u64>();
            let fee = (weight * rate).div_ceil(1_000);
            if let Some(values) = total
                .checked_sub(fee)
                .and_then(|left| self.split(left, scripts.len()))
            {
                break values;
            }
            scripts.pop();
            if scripts.is_empty() {
                return None;
            }
        };
        let mut output: Vec<TxOut> = values
            .into_iter()
            .zip(scripts)
            .map(|(value, script_pubkey)| TxOut {
                value: Amount::from_sat(value),
                script_pubkey,
            })
            .collect();
        if let Some(script_pubkey) = note {
            let at = self.rng.random_range(0..=output.len());
            output.insert(
                at,
                TxOut {
                    value: Amount::ZERO,
                    script_pubkey,
                },
            );
        }
        // Some wallets set the lock time to the tip so that miners gain nothing from mining it lower.
        let lock_time = match self.rng.random_bool(0.3) {
            true => LockTime::from_height(height).unwrap_or(LockTime::ZERO),
            false => LockTime::ZERO,
        };
        let input = inputs
            .iter()
            .map(|(previous_output, _)| TxIn {
                previous_output: *previous_output,
                script_sig: ScriptBuf::new(),
                sequence: REPLACEABLE,
                witness: Witness::new(),
            })
            .collect();
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time,
            input,
            output,
        };
        let spent: Vec<TxOut> = inputs.iter().map(|(_, output)| output.clone()).collect();
        self.signer.sign(&mut tx, &spent)?;
        Some(tx)
    }

    /// Sat per 1,000 weight units, log-normal around 5 sat/vB with a floor of 1 sat/vB: many near the middle, a long tail.
    fn fee_rate(&mut self) -> u64 {
        let bell = (0..12)
            .map(|_| self.rng.random_range(0.0..1.0_f64))
            .sum::<f64>()
            - 6.0;
        let per_vbyte = 5.0 * (0.9 * bell).exp();
        // The clamp keeps the cast inside u64.
        (per_vbyte.clamp(1.0, 400.0) * 250.0) as u64
    }

    fn output_scripts(&mut self, total: u64) -> Vec<ScriptBuf> {
        let rich = total > 20_000_000;
        let batch = rich
            && self
                .rng
                .random_bool(if self.purse.len() < POOR { 0.7 } else { 0.05 });
        let count = if batch {
            self.rng.random_range(12..40_usize)
        } else {
            match self.rng.random_range(0..100_u32) {
                0..14 => 1,
                14..82 => 2,
                82..93 => 3,
                _ => self.rng.random_range(4..9_usize),
            }
        };
        (0..count)
            .map(|_| {
                let kind = match self.rng.random_range(0..100_u32) {
                    0..44 => Kind::P2wpkh,
                    44..68 => Kind::P2tr,
                    68..83 => Kind::P2pkh,
                    83..95 => Kind::P2shP2wpkh,
                    _ => Kind::P2wsh,
                };
                self.script(kind)
            })
            .collect()
    }

    fn script(&mut self, kind: Kind) -> ScriptBuf {
        self.signer
            .script(self.rng.random_range(0..self.signer.len()), kind)
    }

    fn note(&mut self) -> ScriptBuf {
        let mut data = vec![0_u8; self.rng.random_range(4..=80)];
        self.rng.fill_bytes(&mut data);
        let data = PushBytesBuf::try_from(data).unwrap_or_default();
        Builder::new()
            .push_opcode(OP_RETURN)
            .push_slice(data)
            .into_script()
    }

    /// Cuts an amount into `parts` uneven ones, none too small.
    fn split(&mut self, total: u64, parts: usize) -> Option<Vec<u64>> {
        let parts = u64::try_from(parts).ok()?;
        let mut spare = total.checked_sub(parts.checked_mul(SMALLEST_OUTPUT)?)?;
        let mut values = Vec::new();
        for left in (1..=parts).rev() {
            let share = match left {
                1 => spare,
                _ => spare / left * self.rng.random_range(20..=180) / 100,
            };
            spare -= share;
            values.push(SMALLEST_OUTPUT + share);
        }
        Some(values)
    }
}

/// Weight units of an output with this script: value, one byte of length, script.
fn output_weight(script: &ScriptBuf) -> u64 {
    let len = u64::try_from(script.len()).unwrap_or(u64::MAX);
    len.saturating_add(9).saturating_mul(4)
}
