//! What a block must keep by itself, given its height and the times before it: everything but coins and scripts.
//!
//! The order is Bitcoin Core's (`CheckBlock`, then `ContextualCheckBlock`), because it decides who is blamed: what a
//! relayer could have changed without touching the header makes a *mutated* block, which condemns nothing; what the
//! header commits to makes an *invalid* one, which condemns its branch.

use std::ops::Range;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, HashEngine, sha256d};

use crate::network::{MAX_MONEY, Params};

mod merkle;
mod signet;

pub use merkle::{MerkleRoot, MerkleStream, merkle_root};
pub use signet::{Challenge, Solution};

/// The most weight units that a block may have; a quarter of it bounds the bytes without witnesses.
pub const MAX_BLOCK_WEIGHT: usize = 4_000_000;
/// Weight units of a byte that is not witness.
pub const WITNESS_SCALE: usize = 4;
/// Below it a locktime is a height, from it on a unix time.
pub const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// An output script that begins with this and holds 32 more bytes is the witness commitment (BIP141).
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const SEQUENCE_FINAL: u32 = u32::MAX;

/// A block as the checks read it. Transactions are counted from 0; inputs and outputs are counted through the whole
/// block. Every index that is passed in is one that the view itself gave out.
pub trait BlockView {
    /// The header.
    fn header(&self) -> &Header;
    /// How many transactions there are.
    fn tx_count(&self) -> usize;
    /// The txid, internal byte order.
    fn txid(&self, tx: usize) -> [u8; 32];
    /// The wtxid, internal byte order; asked only where the block has a witness or a commitment.
    fn wtxid(&self, tx: usize) -> [u8; 32];
    /// Whether any input has a witness.
    fn tx_has_witness(&self, tx: usize) -> bool;
    /// Bytes with witnesses.
    fn tx_total_size(&self, tx: usize) -> usize;
    /// Bytes without witnesses.
    fn tx_stripped_size(&self, tx: usize) -> usize;
    /// The version, as its 32 bits.
    fn version(&self, tx: usize) -> u32;
    /// The locktime.
    fn lock_time(&self, tx: usize) -> u32;
    /// The inputs of a transaction.
    fn inputs(&self, tx: usize) -> Range<usize>;
    /// The txid of the output that an input spends, internal byte order.
    fn prev_txid(&self, input: usize) -> &[u8; 32];
    /// The number of the output that an input spends.
    fn prev_vout(&self, input: usize) -> u32;
    /// The sequence of an input.
    fn sequence(&self, input: usize) -> u32;
    /// The script of an input.
    fn script_sig(&self, input: usize) -> &[u8];
    /// The outputs of a transaction.
    fn outputs(&self, tx: usize) -> Range<usize>;
    /// The value of an output as it is written, in sat; a negative one is above any limit.
    fn value(&self, output: usize) -> u64;
    /// The script of an output.
    fn script_pubkey(&self, output: usize) -> &[u8];
    /// The only witness item of the coinbase's input; nothing when there are none or several.
    fn coinbase_witness_reserved(&self) -> Option<&[u8]>;
    /// Bytes of the whole block.
    fn size(&self) -> usize;
}

/// Where the block stands.
#[derive(Clone, Copy, Debug)]
pub struct BlockContext {
    /// The network's parameters.
    pub params: &'static Params,
    /// The block's height.
    pub height: u32,
    /// Median time past of its *parent*, unix seconds: what locktimes are compared with (BIP113).
    pub median_time_past: u32,
}

/// Why a block was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// The bytes are not what the header commits to. Another peer may have the right ones.
    #[error("mutated block: {0}")]
    Mutated(Mutation),
    /// The block itself breaks a rule, and so does whatever is built on it.
    #[error("invalid block: {0}")]
    Invalid(Invalidity),
}

impl BadBlock {
    /// Whether the block's header, and its branch, are condemned.
    pub const fn condemns(&self) -> bool {
        matches!(self, BadBlock::Invalid(_))
    }
}

/// What a relayer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mutation {
    /// The bytes are no block.
    #[error("cannot be decoded")]
    Undecodable,
    /// The transactions do not hash to the header's merkle root.
    #[error("merkle root mismatch")]
    MerkleRoot,
    /// Two equal hashes side by side in the merkle tree (CVE-2012-2459).
    #[error("duplicated transactions")]
    DuplicatedPair,
    /// No coinbase, and a transaction of 64 bytes that may be two hashes of the merkle tree.
    #[error("a 64-byte transaction in place of two hashes")]
    SixtyFourBytes,
    /// The coinbase's witness is not one item of 32 bytes.
    #[error("witness reserved value missing or of the wrong size")]
    WitnessReserved,
    /// The witnesses do not hash to the commitment.
    #[error("witness commitment mismatch")]
    WitnessCommitment,
    /// A witness without a commitment, or before segregated witness.
    #[error("unexpected witness in transaction {0}")]
    UnexpectedWitness(usize),
}

/// Which rule the block breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalidity {
    /// There are no transactions.
    #[error("no transactions")]
    Empty,
    /// More than a million bytes without witnesses.
    #[error("{0} bytes without witnesses")]
    Size(usize),
    /// More bytes than a chain without segregated witness allows at the height.
    #[error("{size} bytes, at most {limit}")]
    TooLarge {
        /// Bytes of the block.
        size: usize,
        /// Bytes allowed.
        limit: u64,
    },
    /// More than four million weight units.
    #[error("{0} weight units")]
    Weight(usize),
    /// The first transaction is no coinbase.
    #[error("the first transaction is no coinbase")]
    NoCoinbase,
    /// Another transaction is a coinbase too.
    #[error("transaction {0} is a second coinbase")]
    SecondCoinbase(usize),
    /// The coinbase's script is not 2 to 100 bytes long.
    #[error("coinbase script of {0} bytes")]
    CoinbaseScript(usize),
    /// The coinbase does not begin with the height (BIP34).
    #[error("the coinbase does not begin with height {0}")]
    CoinbaseHeight(u32),
    /// A transaction without inputs.
    #[error("transaction {0} has no inputs")]
    NoInputs(usize),
    /// A transaction without outputs.
    #[error("transaction {0} has no outputs")]
    NoOutputs(usize),
    /// A value above 21 million bitcoins, or negative.
    #[error("transaction {0} has an output out of range")]
    Value(usize),
    /// The values of a transaction add up to more than 21 million bitcoins.
    #[error("the outputs of transaction {0} add up to more than exists")]
    ValueSum(usize),
    /// A transaction spends an output twice.
    #[error("transaction {0} spends an output twice")]
    DuplicateInput(usize),
    /// A transaction that is no coinbase spends the null output.
    #[error("transaction {0} spends the null output")]
    NullInput(usize),
    /// The block's solution is missing, or does not meet the signet's challenge (BIP325).
    #[error("signet: {0}")]
    Signet(&'static str),
    /// A locktime that has not passed (BIP113).
    #[error("transaction {0} is not final")]
    NotFinal(usize),
}

/// Checks everything about a block that needs no coins and no scripts. Its header is taken as checked, and as that of
/// the block that was asked for.
pub fn check_block(block: &impl BlockView, context: &BlockContext) -> Result<(), BadBlock> {
    check_merkle(block)?;
    invalid_unless(block.tx_count() > 0, Invalidity::Empty)?;
    check_sizes(stripped_size(block), context)?;
    check_coinbase(block)?;
    let mut spent = Vec::new();
    for tx in 0..block.tx_count() {
        check_transaction(block, tx, 0, &mut spent)?;
    }
    for tx in 0..block.tx_count() {
        check_final(block, tx, 0, context)?;
    }
    check_coinbase_height(block, context)?;
    check_witness(block, context)?;
    if let Some(challenge) = &context.params.signet_challenge {
        signet::check(block, challenge)?;
    }
    // Last, since padding the coinbase's witness changes the weight and no hash: only now is it known to be committed.
    if context.params.segwit {
        let weight = stripped_size(block) * (WITNESS_SCALE - 1) + block.size();
        invalid_unless(weight <= MAX_BLOCK_WEIGHT, Invalidity::Weight(weight))?;
    }
    Ok(())
}

fn invalid_unless(valid: bool, otherwise: Invalidity) -> Result<(), BadBlock> {
    if valid {
        Ok(())
    } else {
        Err(BadBlock::Invalid(otherwise))
    }
}

fn check_merkle(block: &impl BlockView) -> Result<(), BadBlock> {
    let root = merkle_root((0..block.tx_count()).map(|tx| block.txid(tx)).collect());
    if root.root != block.header().merkle_root.to_byte_array() {
        return Err(BadBlock::Mutated(Mutation::MerkleRoot));
    }
    if root.duplicated_pair {
        return Err(BadBlock::Mutated(Mutation::DuplicatedPair));
    }
    // Core's `IsBlockMutated`: the hashes of an inner row can be passed off as transactions of 64 bytes, but none of
    // them as a coinbase. A 64-byte transaction behind a real coinbase is valid, and the main chain has some.
    let mutable = block.tx_count() > 0 && !is_coinbase(block, 0);
    if mutable && (0..block.tx_count()).any(|tx| block.tx_stripped_size(tx) == 64) {
        return Err(BadBlock::Mutated(Mutation::SixtyFourBytes));
    }
    Ok(())
}

pub(super) fn compact_size_length(value: usize) -> usize {
    bitcoin::VarInt::from(value).size()
}

fn stripped_size(block: &impl BlockView) -> usize {
    let count = block.tx_count();
    Header::SIZE
        + compact_size_length(count)
        + (0..count)
            .map(|tx| block.tx_stripped_size(tx))
            .sum::<usize>()
}

pub(super) fn check_sizes(size: usize, context: &BlockContext) -> Result<(), BadBlock> {
    if let Some(limit) = context.params.max_block_size(context.height) {
        return invalid_unless(size as u64 <= limit, Invalidity::TooLarge { size, limit });
    }
    invalid_unless(
        size * WITNESS_SCALE <= MAX_BLOCK_WEIGHT,
        Invalidity::Size(size),
    )
}

fn is_null(block: &impl BlockView, input: usize) -> bool {
    block.prev_vout(input) == u32::MAX && *block.prev_txid(input) == [0; 32]
}

pub(super) fn is_coinbase(block: &impl BlockView, tx: usize) -> bool {
    let inputs = block.inputs(tx);
    inputs.len() == 1 && is_null(block, inputs.start)
}

fn check_coinbase(block: &impl BlockView) -> Result<(), BadBlock> {
    invalid_unless(is_coinbase(block, 0), Invalidity::NoCoinbase)?;
    match (1..block.tx_count()).find(|tx| is_coinbase(block, *tx)) {
        Some(tx) => Err(BadBlock::Invalid(Invalidity::SecondCoinbase(tx))),
        None => Ok(()),
    }
}

/// Core's `CheckTransaction`. `before` transactions of the block come before those of the view. `spent` is scratch space,
/// kept from one transaction to the next.
pub(super) fn check_transaction(
    block: &impl BlockView,
    tx: usize,
    before: usize,
    spent: &mut Vec<([u8; 32], u32)>,
) -> Result<(), BadBlock> {
    let (inputs, outputs) = (block.inputs(tx), block.outputs(tx));
    let (at, tx) = (tx, before + tx);
    debug_assert!(at < block.tx_count());
    invalid_unless(!inputs.is_empty(), Invalidity::NoInputs(tx))?;
    invalid_unless(!outputs.is_empty(), Invalidity::NoOutputs(tx))?;
    let mut sum = 0u64;
    for output in outputs {
        let value = block.value(output);
        invalid_unless(value <= MAX_MONEY, Invalidity::Value(tx))?;
        // Neither side passes 21 million bitcoins, so the sum cannot overflow.
        sum += value;
        invalid_unless(sum <= MAX_MONEY, Invalidity::ValueSum(tx))?;
    }
    if tx == 0 {
        let length = block.script_sig(inputs.start).len();
        return invalid_unless(
            (2..=100).contains(&length),
            Invalidity::CoinbaseScript(length),
        );
    }
    if inputs.len() > 1 {
        // Sorted rather than compared pair by pair: a block may hold one transaction with 20,000 inputs.
        spent.clear();
        spent.extend(
            inputs
                .clone()
                .map(|input| (*block.prev_txid(input), block.prev_vout(input))),
        );
        spent.sort_unstable();
        let twice = spent
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a == b));
        invalid_unless(!twice, Invalidity::DuplicateInput(tx))?;
    }
    invalid_unless(
        !inputs.into_iter().any(|input| is_null(block, input)),
        Invalidity::NullInput(tx),
    )
}

pub(super) fn check_final(
    block: &impl BlockView,
    tx: usize,
    before: usize,
    context: &BlockContext,
) -> Result<(), BadBlock> {
    let now = if context.height >= context.params.csv_height {
        context.median_time_past
    } else {
        block.header().time
    };
    let lock_time = block.lock_time(tx);
    let passed = if lock_time < LOCKTIME_THRESHOLD {
        lock_time < context.height
    } else {
        lock_time < now
    };
    // All inputs final switch the locktime off.
    let is_final = lock_time == 0
        || passed
        || block
            .inputs(tx)
            .all(|input| block.sequence(input) == SEQUENCE_FINAL);
    invalid_unless(is_final, Invalidity::NotFinal(before + tx))
}

pub(super) fn check_coinbase_height(
    block: &impl BlockView,
    context: &BlockContext,
) -> Result<(), BadBlock> {
    if context.height < context.params.bip34_height {
        return Ok(());
    }
    let expected = height_script(context.height);
    let script = block.script_sig(block.inputs(0).start);
    invalid_unless(
        script.starts_with(&expected),
        Invalidity::CoinbaseHeight(context.height),
    )
}

/// The script that pushes a height: OP_1 to OP_16 for the small ones, as on regtest, else a minimal script number.
pub fn height_script(height: u32) -> Vec<u8> {
    bitcoin::script::Builder::new()
        .push_int(i64::from(height))
        .into_bytes()
}

/// BIP141: the witnesses are committed to by the last output of the coinbase that looks like a commitment.
fn check_witness(block: &impl BlockView, context: &BlockContext) -> Result<(), BadBlock> {
    let Some(commitment) = commitment(block, context) else {
        return match (0..block.tx_count()).find(|tx| block.tx_has_witness(*tx)) {
            Some(tx) => Err(BadBlock::Mutated(Mutation::UnexpectedWitness(tx))),
            None => Ok(()),
        };
    };
    let reserved = block
        .coinbase_witness_reserved()
        .filter(|reserved| reserved.len() == 32)
        .ok_or(BadBlock::Mutated(Mutation::WitnessReserved))?;
    // The coinbase commits to the others, so its own wtxid counts as zero.
    let leaves = std::iter::once([0; 32]).chain((1..block.tx_count()).map(|tx| block.wtxid(tx)));
    let root = merkle_root(leaves.collect()).root;
    check_commitment(root, reserved, &commitment)
}

/// The witness commitment that the coinbase, the first transaction of the view, holds; none before segregated witness.
pub(super) fn commitment(block: &impl BlockView, context: &BlockContext) -> Option<[u8; 32]> {
    let commitment = block.outputs(0).rev().find_map(|output| {
        let script = block.script_pubkey(output);
        script
            .strip_prefix(COMMITMENT_PREFIX.as_slice())
            .and_then(|rest| rest.first_chunk::<32>())
            .copied()
    });
    commitment.filter(|_| context.height >= context.params.segwit_height)
}

pub(super) fn check_commitment(
    root: [u8; 32],
    reserved: &[u8],
    commitment: &[u8; 32],
) -> Result<(), BadBlock> {
    let mut engine = sha256d::Hash::engine();
    engine.input(&root);
    engine.input(reserved);
    if sha256d::Hash::from_engine(engine).to_byte_array() != *commitment {
        return Err(BadBlock::Mutated(Mutation::WitnessCommitment));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
