//! The checks of a block that is too long to be held: the same rules, over runs of its transactions as they come.
//!
//! What [`check_block`](super::block_check::check_block) looks at first, the merkle root, is known last here. So a broken rule is
//! kept in mind until then: only when the bytes are those that the header commits to is the block invalid and not mutated.

use bitcoin::hashes::Hash;

use super::block_check::{
    BadBlock, BlockContext, BlockView, Challenge, Invalidity, MAX_BLOCK_WEIGHT, MerkleStream,
    Mutation, Solution, WITNESS_SCALE, check_coinbase_height, check_commitment, check_final,
    check_sizes, check_transaction, commitment, compact_size_length, is_coinbase,
};
use crate::frame::{DecodeError, Frame, HEADER_LEN, Runs};

/// Bytes that are checked at once.
const RUN: usize = 1 << 20;

/// Why the checks of a stream ended early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The block is refused.
    #[error(transparent)]
    Bad(#[from] BadBlock),
    /// The block may be good, but one of its transactions is longer than this host holds, in bytes.
    #[error("a transaction of {0} bytes or more is longer than this host holds")]
    TransactionTooLong(usize),
}

/// What a block that passed the checks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its transactions.
    pub transactions: u64,
    /// Its weight units.
    pub weight: u64,
}

/// A block under check.
#[derive(Debug)]
pub struct BlockStream {
    context: BlockContext,
    length: u64,
    runs: Runs,
    merkle: MerkleStream,
    /// The witness commitment and the reserved value of the coinbase, and the tree of the wtxids.
    commitment: Option<([u8; 32], Option<Vec<u8>>)>,
    wtxids: MerkleStream,
    /// The solution of a signet block, and the tree that it signs.
    solution: Option<(Solution, MerkleStream)>,
    /// The first transaction with a witness.
    witness: Option<usize>,
    real_coinbase: bool,
    sixty_four: bool,
    stripped: u64,
    first_bad: Option<BadBlock>,
    header: Option<bitcoin::block::Header>,
    count: u64,
    spent: Vec<([u8; 32], u32)>,
}

impl BlockStream {
    /// Checks a block of `length` bytes, whose transactions have `longest` bytes at most.
    pub fn new(context: BlockContext, length: u64, longest: usize) -> Self {
        Self {
            context,
            length,
            runs: Runs::new(length, RUN, longest),
            merkle: MerkleStream::default(),
            commitment: None,
            wtxids: MerkleStream::default(),
            solution: None,
            witness: None,
            real_coinbase: false,
            sixty_four: false,
            stripped: 0,
            first_bad: None,
            header: None,
            count: 0,
            spent: Vec::new(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are no block.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let broken = |error| match error {
            DecodeError::TransactionTooLong(length) => StreamError::TransactionTooLong(length),
            _ => StreamError::Bad(BadBlock::Mutated(Mutation::Undecodable)),
        };
        self.runs.push(bytes).map_err(broken)?;
        while let Some(run) = self.runs.next().map_err(broken)? {
            self.run(&run.frame, run.first as usize);
            self.count = u64::from(run.of);
        }
        Ok(())
    }

    fn note(&mut self, result: Result<(), BadBlock>) {
        if let Err(bad) = result {
            self.first_bad.get_or_insert(bad);
        }
    }

    fn run(&mut self, view: &Frame, before: usize) {
        self.header = Some(view.header);
        if before == 0 {
            self.coinbase(view);
        }
        let mut spent = std::mem::take(&mut self.spent);
        for tx in 0..view.tx_count() {
            let txid = view.txid(tx);
            self.merkle.push(txid);
            let first = before + tx == 0;
            if self.commitment.is_some() {
                // The coinbase commits to the others, so its own wtxid counts as zero.
                let wtxid = if first {
                    [0; 32]
                } else {
                    BlockView::wtxid(view, tx)
                };
                self.wtxids.push(wtxid);
            }
            if let Some((solution, tree)) = &mut self.solution {
                tree.push(if first { solution.leaf } else { txid });
            }
            if self.witness.is_none() && view.tx_has_witness(tx) {
                self.witness = Some(before + tx);
            }
            let stripped = view.tx_stripped_size(tx);
            self.sixty_four |= stripped == 64;
            self.stripped += stripped as u64;
            if self.first_bad.is_some() {
                continue;
            }
            if !first && is_coinbase(view, tx) {
                self.note(Err(BadBlock::Invalid(Invalidity::SecondCoinbase(
                    before + tx,
                ))));
            }
            self.note(check_transaction(view, tx, before, &mut spent));
            self.note(check_final(view, tx, before, &self.context));
        }
        self.spent = spent;
    }

    fn coinbase(&mut self, view: &Frame) {
        self.real_coinbase = is_coinbase(view, 0);
        if !self.real_coinbase {
            self.note(Err(BadBlock::Invalid(Invalidity::NoCoinbase)));
            return;
        }
        self.note(check_coinbase_height(view, &self.context));
        self.commitment = commitment(view, &self.context).map(|commitment| {
            let reserved = view.coinbase_witness_reserved().map(<[u8]>::to_vec);
            (commitment, reserved)
        });
        let challenge = self.context.params.signet_challenge.as_deref();
        if challenge.is_some_and(|challenge| Challenge::of(challenge).is_checked()) {
            match Solution::of(view) {
                Ok(solution) => self.solution = Some((solution, MerkleStream::default())),
                Err(bad) => self.note(Err(bad)),
            }
        }
    }

    /// Says whether the block, which must be whole, is good.
    ///
    /// # Errors
    /// When it is not.
    pub fn finish(self) -> Result<Passed, BadBlock> {
        let Some(header) = self.header.filter(|_| self.runs.is_finished()) else {
            return Err(BadBlock::Mutated(Mutation::Undecodable));
        };
        let root = self.merkle.finish();
        if root.root != header.merkle_root.to_byte_array() {
            return Err(BadBlock::Mutated(Mutation::MerkleRoot));
        }
        if root.duplicated_pair {
            return Err(BadBlock::Mutated(Mutation::DuplicatedPair));
        }
        if self.sixty_four && !self.real_coinbase {
            return Err(BadBlock::Mutated(Mutation::SixtyFourBytes));
        }
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let stripped = self.stripped + (HEADER_LEN + compact_size_length(count)) as u64;
        check_sizes(
            usize::try_from(stripped).unwrap_or(usize::MAX),
            &self.context,
        )?;
        if let Some(bad) = self.first_bad {
            return Err(bad);
        }
        match (self.commitment, self.witness) {
            (None, Some(tx)) => return Err(BadBlock::Mutated(Mutation::UnexpectedWitness(tx))),
            (None, None) => {}
            (Some((commitment, reserved)), _) => {
                let reserved = reserved
                    .filter(|reserved| reserved.len() == 32)
                    .ok_or(BadBlock::Mutated(Mutation::WitnessReserved))?;
                check_commitment(self.wtxids.finish().root, &reserved, &commitment)?;
            }
        }
        if let (Some((solution, tree)), Some(challenge)) =
            (self.solution, &self.context.params.signet_challenge)
        {
            solution.check(challenge, &header, tree.finish().root)?;
        }
        let weight = stripped * (WITNESS_SCALE as u64 - 1) + self.length;
        if self.context.params.segwit && weight > MAX_BLOCK_WEIGHT as u64 {
            return Err(BadBlock::Invalid(Invalidity::Weight(weight as usize)));
        }
        Ok(Passed {
            transactions: self.count,
            weight,
        })
    }
}

#[cfg(test)]
mod tests;
