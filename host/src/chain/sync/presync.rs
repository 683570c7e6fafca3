//! Branches whose work is not known to be enough: read twice, so that cheap headers cost no memory.
//!
//! Whoever has an old mining machine can make millions of headers at the difficulty of the first years. A branch is therefore measured first:
//! of each header only the proof of work is looked at, and of every 632nd one bit of a keyed hash is kept. When the
//! branch has shown enough work, it is read again from its beginning, held against those bits, and goes into the tree behind a
//! buffer so long that a branch which is another one this time is found out before its first header leaves it. The method,
//! the numbers and the odds are Bitcoin Core's (`headerssync`).

use std::collections::VecDeque;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{BlockHash, CompactTarget, Target, Work};

use crate::network::{Params, RETARGET_INTERVAL};

/// One header in so many leaves a bit.
const MARK_PERIOD: u32 = 632;
/// Headers that are held back on the second reading: an attacker has to guess the bits of so many.
const BUFFER: usize = 15_009;
/// The median of eleven times must grow, so there are at most six headers a second.
const HEADERS_PER_SECOND: u64 = 6;

/// What is known of the header before the first one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) hash: BlockHash,
    pub(super) height: u32,
    /// Compact target.
    pub(super) bits: u32,
    /// Of the branch that ends with it.
    pub(super) work: Work,
    /// Median time past, unix seconds.
    pub(super) median_time: u32,
}

/// What a message of headers came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// The branch has more: ask for what comes after [`Presync::last`].
    Ask,
    /// These are good for the tree; then ask for more.
    Take(Vec<Header>),
    /// These are good for the tree, and all that comes after them is: the branch has enough work.
    Done(Vec<Header>),
    /// The branch ends before it has enough work.
    TooLittle,
    /// The headers break a rule, or are not those of the first reading.
    Refused(Refusal),
}

/// Why the reading of a branch was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The headers do not follow one another.
    #[error("headers that do not follow one another")]
    Broken,
    /// The hash is above the target, or the target above the network's.
    #[error("header {0} has no proof of work")]
    BadProofOfWork(BlockHash),
    /// A difficulty that no rule allows after the one before.
    #[error("header {0} has a difficulty that cannot follow the one before it")]
    BadDifficulty(BlockHash),
    /// More headers than there can be since the branch began.
    #[error("more headers than there were seconds for")]
    TooMany,
    /// Other headers than on the first reading.
    #[error("another branch than it showed before")]
    Changed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    First,
    Second,
}

/// The state of reading one branch of one peer.
#[derive(Debug)]
pub(super) struct Presync {
    params: &'static Params,
    start: Start,
    required: Work,
    key: u64,
    offset: u32,
    max_marks: usize,
    buffer: usize,
    marks: Marks,
    reading: Reading,
    hash: BlockHash,
    height: u32,
    bits: u32,
    work: Work,
    /// The work of one header with `bits`: a 256-bit division that is mostly the same.
    step: Work,
    held: VecDeque<Header>,
}

impl Presync {
    /// Begins after a header of the tree. `now` is unix time in seconds; `key` is random.
    pub(super) fn new(
        params: &'static Params,
        start: Start,
        required: Work,
        key: u64,
        now: u64,
    ) -> Presync {
        let seconds = now
            .saturating_sub(u64::from(start.median_time))
            .saturating_add(crate::chain::header_rules::MAX_FUTURE_SECONDS);
        let max_marks = seconds.saturating_mul(HEADERS_PER_SECOND) / u64::from(MARK_PERIOD) + 1;
        Presync {
            params,
            start,
            required,
            key,
            offset: (key >> 32) as u32 % MARK_PERIOD,
            max_marks: usize::try_from(max_marks).unwrap_or(usize::MAX),
            buffer: BUFFER,
            marks: Marks::default(),
            reading: Reading::First,
            hash: start.hash,
            height: start.height,
            bits: start.bits,
            work: start.work,
            step: work_of(start.bits),
            held: VecDeque::new(),
        }
    }

    /// The header after which the branch is read on.
    pub(super) fn last(&self) -> BlockHash {
        self.hash
    }

    /// Height of that header.
    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The header of the tree at which the branch begins.
    pub(super) fn start(&self) -> BlockHash {
        self.start.hash
    }

    /// Takes the next message. `more` says that the message was full, so that there may be another.
    pub(super) fn read(&mut self, headers: &[Header], more: bool) -> Advance {
        match self.reading {
            Reading::First => self.measure(headers, more),
            Reading::Second => self.keep(headers, more),
        }
    }

    fn measure(&mut self, headers: &[Header], more: bool) -> Advance {
        for header in headers {
            if let Err(refusal) = self.follow(header) {
                return Advance::Refused(refusal);
            }
            if self.is_marked() {
                if self.marks.len() >= self.max_marks {
                    return Advance::Refused(Refusal::TooMany);
                }
                let mark = self.mark();
                self.marks.push(mark);
            }
            if self.work >= self.required {
                self.rewind();
                return Advance::Ask;
            }
        }
        if more {
            Advance::Ask
        } else {
            Advance::TooLittle
        }
    }

    fn keep(&mut self, headers: &[Header], more: bool) -> Advance {
        let mut enough = false;
        for header in headers {
            if let Err(refusal) = self.follow(header) {
                return Advance::Refused(refusal);
            }
            enough |= self.work >= self.required;
            // Behind the place where the first reading ended there are no marks.
            if !enough && self.is_marked() && self.marks.pop() != Some(self.mark()) {
                return Advance::Refused(Refusal::Changed);
            }
            self.held.push_back(*header);
        }
        if enough {
            return Advance::Done(self.held.drain(..).collect());
        }
        if !more {
            return Advance::Refused(Refusal::Changed);
        }
        let ready = self.held.len().saturating_sub(self.buffer);
        if ready == 0 {
            Advance::Ask
        } else {
            Advance::Take(self.held.drain(..ready).collect())
        }
    }

    /// Goes one header on, if it may follow.
    fn follow(&mut self, header: &Header) -> Result<(), Refusal> {
        if header.prev_blockhash != self.hash {
            return Err(Refusal::Broken);
        }
        let hash = header.block_hash();
        let bits = header.bits.to_consensus();
        let height = self.height.saturating_add(1);
        if bits != self.bits {
            if !may_follow(self.params, height, self.bits, bits) {
                return Err(Refusal::BadDifficulty(hash));
            }
            self.step = work_of(bits);
        }
        let target = Target::from_compact(header.bits);
        if target > self.params.pow_limit || !target.is_met_by(hash) {
            return Err(Refusal::BadProofOfWork(hash));
        }
        (self.hash, self.height, self.bits) = (hash, height, bits);
        self.work = self.work + self.step;
        Ok(())
    }

    fn rewind(&mut self) {
        self.reading = Reading::Second;
        self.hash = self.start.hash;
        self.height = self.start.height;
        self.bits = self.start.bits;
        self.work = self.start.work;
        self.step = work_of(self.start.bits);
    }

    fn is_marked(&self) -> bool {
        self.height % MARK_PERIOD == self.offset
    }

    fn mark(&self) -> bool {
        siphash24::Hash::hash_to_u64_with_keys(
            self.key,
            u64::from(self.offset),
            self.hash.as_byte_array(),
        ) & 1
            == 1
    }
}

fn work_of(bits: u32) -> Work {
    Target::from_compact(CompactTarget::from_consensus(bits)).to_work()
}

/// Whether a header at `height` may have these bits after those of its parent: within a factor of four where the target may
/// change, and else the same (Core's `PermittedDifficultyTransition`). Where a period begins it may; on the chains of Bitcoin
/// Cash's descent every block may change it, since August 2017. The exact rule is for the tree, which knows the times.
fn may_follow(params: &Params, height: u32, before: u32, after: u32) -> bool {
    if params.allow_min_difficulty {
        return true;
    }
    let each_block = params.uahf_height.is_some_and(|uahf| height > uahf);
    if !each_block && !height.is_multiple_of(RETARGET_INTERVAL) {
        return before == after;
    }
    let target = |bits| Target::from_compact(CompactTarget::from_consensus(bits));
    // Compact targets are rounded, so the bounds are as well.
    let rounded = |target: Target| Target::from_compact(target.to_compact_lossy());
    let largest = rounded(
        target(before)
            .max_transition_threshold_unchecked()
            .min(params.pow_limit),
    );
    let smallest = rounded(target(before).min_transition_threshold());
    (smallest..=largest).contains(&target(after))
}

/// A queue of bits.
#[derive(Debug, Default)]
struct Marks {
    words: VecDeque<u64>,
    /// Bits of the first word that are gone.
    gone: usize,
    /// Bits that were ever put into the words that are here.
    filled: usize,
}

impl Marks {
    fn len(&self) -> usize {
        self.filled - self.gone
    }

    fn push(&mut self, mark: bool) {
        if self.filled.is_multiple_of(64) {
            self.words.push_back(0);
        }
        if let Some(word) = self.words.back_mut() {
            *word |= u64::from(mark) << (self.filled % 64);
        }
        self.filled += 1;
    }

    fn pop(&mut self) -> Option<bool> {
        if self.len() == 0 {
            return None;
        }
        let mark = self.words.front()? >> self.gone & 1 == 1;
        self.gone += 1;
        if self.gone == 64 {
            self.words.pop_front();
            self.gone = 0;
            self.filled -= 64;
        }
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::chain::fixtures::{self, mine_header};
    use crate::network::Network;
    use proptest::prelude::*;

    fn regtest() -> &'static Params {
        Network::Regtest.params()
    }

    fn branch(count: usize) -> Vec<Header> {
        let mut headers = vec![mine_header(&regtest().genesis_header, |_| {})];
        while headers.len() < count {
            let next = mine_header(headers.last().unwrap(), |_| {});
            headers.push(next);
        }
        headers
    }

    /// A reading of a branch on the genesis that has to have `count` headers' work.
    fn presync(count: usize) -> Presync {
        let genesis = regtest().genesis_header;
        let start = Start {
            hash: genesis.block_hash(),
            height: 0,
            bits: genesis.bits.to_consensus(),
            work: genesis.work(),
            median_time: genesis.time,
        };
        let required = (0..count).fold(genesis.work(), |sum, _| sum + genesis.work());
        Presync::new(
            regtest(),
            start,
            required,
            0x0123_4567_89ab_cdef,
            1_400_000_000,
        )
    }

    #[test]
    fn enough_work_is_read_twice_and_comes_out_whole() {
        let headers = branch(3_000);
        let mut presync = presync(2_500);
        presync.buffer = 700;
        assert_eq!(presync.read(&headers[..2_000], true), Advance::Ask);
        assert_eq!(presync.last(), headers[1_999].block_hash());
        assert_eq!(presync.read(&headers[2_000..], true), Advance::Ask);
        // From the beginning.
        assert_eq!(presync.last(), presync.start());
        let Advance::Take(mut taken) = presync.read(&headers[..2_000], true) else {
            panic!("not taken");
        };
        assert_eq!(taken.len(), 1_300);
        let Advance::Done(rest) = presync.read(&headers[2_000..], false) else {
            panic!("not done");
        };
        taken.extend(rest);
        assert_eq!(taken, headers);
    }

    #[test]
    fn a_branch_that_ends_early_has_too_little() {
        let headers = branch(100);
        let mut presync = presync(200);
        assert_eq!(presync.read(&headers, false), Advance::TooLittle);
    }

    #[test]
    fn another_branch_on_the_second_reading_is_found_out_before_anything_is_taken() {
        let headers = branch(4_000);
        let mut others = headers[..10].to_vec();
        while others.len() < 4_000 {
            let next = mine_header(others.last().unwrap(), |header| header.time += 7);
            others.push(next);
        }
        let mut presync = presync(3_900);
        assert_eq!(presync.read(&headers, true), Advance::Ask);
        // Six bits of it are known: one branch in 64 is not found out by them, and this key's is.
        assert_eq!(
            presync.read(&others[..3_800], true),
            Advance::Refused(Refusal::Changed)
        );
    }

    #[test]
    fn a_shorter_branch_on_the_second_reading_is_no_branch() {
        let headers = branch(300);
        let mut presync = presync(250);
        assert_eq!(presync.read(&headers, true), Advance::Ask);
        assert_eq!(
            presync.read(&headers[..200], false),
            Advance::Refused(Refusal::Changed)
        );
    }

    #[test]
    fn each_rule_is_kept_on_the_first_reading() {
        let headers = branch(10);
        assert_eq!(
            presync(20).read(&[headers[0], headers[2]], true),
            Advance::Refused(Refusal::Broken)
        );
        let mut forged = headers[0];
        while forged.target().is_met_by(forged.block_hash()) {
            forged.nonce += 1;
        }
        assert_eq!(
            presync(20).read(&[forged], true),
            Advance::Refused(Refusal::BadProofOfWork(forged.block_hash()))
        );
        // A target above the network's makes proof of work of anything.
        let mut easy = headers[0];
        easy.bits = CompactTarget::from_consensus(0x2100_ffff);
        assert_eq!(
            presync(20).read(&[easy], true),
            Advance::Refused(Refusal::BadProofOfWork(easy.block_hash()))
        );
    }

    #[test]
    fn there_are_no_more_headers_than_seconds_allow() {
        let headers = branch(2 * MARK_PERIOD as usize);
        let mut presync = presync(5_000);
        presync.max_marks = 1;
        assert_eq!(
            presync.read(&headers, true),
            Advance::Refused(Refusal::TooMany)
        );
    }

    #[test]
    fn mainnets_headers_may_follow_one_another_and_a_leap_may_not() {
        let params = Network::Mainnet.params();
        let Some(headers) = fixtures::headers("headers/mainnet-0-10236.bin") else {
            return;
        };
        for (height, pair) in headers.windows(2).enumerate() {
            let [before, after] = [pair[0], pair[1]].map(|header| header.bits.to_consensus());
            assert!(may_follow(params, height as u32 + 1, before, after));
        }
        assert!(may_follow(params, 2_016, 0x1b04_04cb, 0x1b01_0132));
        assert!(!may_follow(params, 2_016, 0x1b04_04cb, 0x1b00_8000));
        assert!(!may_follow(params, 2_017, 0x1b04_04cb, 0x1b03_0000));
    }

    #[test]
    fn where_each_block_has_a_difficulty_of_its_own_it_may_change_by_a_factor_of_four() {
        let params = "bsv-main".parse::<Network>().unwrap().params();
        // The first emergency adjustment, and a block of today.
        assert!(may_follow(params, 478_577, 0x1801_4735, 0x1801_9902));
        assert!(may_follow(params, 840_001, 0x180d_5a3c, 0x180d_6021));
        assert!(!may_follow(params, 478_577, 0x1801_4735, 0x1806_6409));
        // Not before the fork, and not on Bitcoin.
        assert!(!may_follow(params, 478_500, 0x1801_4735, 0x1801_9902));
        let bitcoin = Network::Mainnet.params();
        assert!(!may_follow(bitcoin, 478_577, 0x1801_4735, 0x1801_9902));
    }

    proptest! {
        #[test]
        fn marks_are_a_queue(steps in prop::collection::vec(any::<(bool, bool)>(), 0..400)) {
            let mut marks = Marks::default();
            let mut model = VecDeque::new();
            for (push, bit) in steps {
                if push {
                    marks.push(bit);
                    model.push_back(bit);
                } else {
                    prop_assert_eq!(marks.pop(), model.pop_front());
                }
                prop_assert_eq!(marks.len(), model.len());
            }
        }
    }
}
