//! The rules of a header, given its ancestors: proof of work, exact difficulty, time, version.
//!
//! The difficulty arithmetic is our own: `rust-bitcoin` 0.32 subtracts timestamps as `u32` (a period may end before it
//! began) and leaves it to the caller to know that testnet4 starts from a period's first bits.

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Target, Work};

use crate::network::{Params, RETARGET_INTERVAL, TARGET_SPACING, TARGET_TIMESPAN};

/// How far ahead of our clock a header may be, in seconds.
pub const MAX_FUTURE_SECONDS: u64 = 2 * 60 * 60;
/// How many headers the median time past is taken over.
pub const MEDIAN_TIME_SPAN: usize = 11;
/// How far the first block of a period may be before its parent, in seconds (BIP94).
pub const MAX_TIMEWARP_SECONDS: i64 = 600;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The parent is not in the tree. Not a fault by itself: the peer may be ahead of us.
    #[error("parent {0} is unknown")]
    UnknownParent(BlockHash),
    /// The header, or one that it stands on, belongs to a block that was found invalid.
    #[error("on top of the invalid block {0}")]
    InvalidBranch(BlockHash),
    /// The bits are not what the retarget rules ask for.
    #[error("bits {got:#010x}, but the rules ask for {expected:#010x}")]
    BadBits {
        /// Compact target of the header.
        got: u32,
        /// Compact target that its ancestors ask for.
        expected: u32,
    },
    /// The hash is above the target that the bits name.
    #[error("hash {0} does not meet its target")]
    BadProofOfWork(BlockHash),
    /// The time is not after the median of the last eleven headers.
    #[error("time {time} is not after the median time past {median}")]
    TooOld {
        /// Unix time of the header.
        time: u32,
        /// Unix time that it must pass.
        median: u32,
    },
    /// The first block of a period is more than ten minutes before its parent (BIP94).
    #[error("time {time} is more than 600 s before its parent's {parent} at the start of a period")]
    TimeWarp {
        /// Unix time of the header.
        time: u32,
        /// Unix time of its parent.
        parent: u32,
    },
    /// The time is more than two hours ahead. It may become valid.
    #[error("time {time} is more than two hours ahead of {now}")]
    TooNew {
        /// Unix time of the header.
        time: u32,
        /// Our unix time.
        now: u64,
    },
    /// The version is older than what the height asks for (BIP34, 66, 65).
    #[error("version {version} at height {height}")]
    OldVersion {
        /// Version of the header.
        version: i32,
        /// Its height.
        height: u32,
    },
    /// The chain has another block at this height: this one is of a chain that shares its past.
    #[error("another block is pinned at height {height}")]
    NotPinned {
        /// Its height.
        height: u32,
    },
    /// The tree holds as many headers as it may.
    #[error("the header tree is full")]
    TreeFull,
}

/// What the rules need to know about a header's ancestors.
pub trait Ancestry {
    /// Height of the parent.
    fn parent_height(&self) -> u32;
    /// Compact target of the ancestor at `height`; the parent's when there is none.
    fn bits_at(&self, height: u32) -> u32;
    /// Time of the ancestor at `height`.
    fn time_at(&self, height: u32) -> u32;
    /// Compact target of the nearest ancestor, the parent included, that opens a period or is not at `limit`: what
    /// the 20-minute rule of the test networks goes back to.
    fn last_real_bits(&self, limit: u32) -> u32;
    /// Median time past of the parent: over it and the ten before.
    fn median_time_past(&self) -> u32;
    /// The same of the ancestor at `height`; the parent's when there is none.
    fn median_time_at(&self, height: u32) -> u32;
    /// The work of the branch up to the ancestor at `height`; the parent's when there is none.
    fn work_at(&self, height: u32) -> Work;
}

/// Checks `header` against its ancestors and the clock (`now`, unix seconds).
pub fn check_header(
    params: &Params,
    header: &Header,
    hash: BlockHash,
    ancestors: &impl Ancestry,
    now: u64,
) -> Result<(), HeaderError> {
    let parent_height = ancestors.parent_height();
    let height = parent_height.saturating_add(1);
    // The bits first: whoever invents them is refused before any target is read from them.
    let expected = next_bits(params, header.time, ancestors);
    let got = header.bits.to_consensus();
    if got != expected {
        return Err(HeaderError::BadBits { got, expected });
    }
    if !Target::from_compact(header.bits).is_met_by(hash) {
        return Err(HeaderError::BadProofOfWork(hash));
    }
    if !params.may_be(height, &hash) {
        return Err(HeaderError::NotPinned { height });
    }
    let median = ancestors.median_time_past();
    if header.time <= median {
        return Err(HeaderError::TooOld {
            time: header.time,
            median,
        });
    }
    if params.bip94 && height.is_multiple_of(RETARGET_INTERVAL) {
        let parent = ancestors.time_at(parent_height);
        if i64::from(header.time) < i64::from(parent) - MAX_TIMEWARP_SECONDS {
            return Err(HeaderError::TimeWarp {
                time: header.time,
                parent,
            });
        }
    }
    if u64::from(header.time) > now.saturating_add(MAX_FUTURE_SECONDS) {
        return Err(HeaderError::TooNew {
            time: header.time,
            now,
        });
    }
    let version = header.version.to_consensus();
    let too_old = (version < 2 && height >= params.bip34_height)
        || (version < 3 && height >= params.bip66_height)
        || (version < 4 && height >= params.bip65_height);
    if too_old {
        return Err(HeaderError::OldVersion { version, height });
    }
    Ok(())
}

/// The compact target that the next header must have if its time is `time` (Core's `GetNextWorkRequired`).
pub fn next_bits(params: &Params, time: u32, ancestors: &impl Ancestry) -> u32 {
    let parent = ancestors.parent_height();
    let bits = ancestors.bits_at(parent);
    if params.no_retargeting {
        // Every block of such a chain is at the limit, whatever the rules below would look at to find that out.
        return bits;
    }
    if params.daa_height.is_some_and(|daa| parent >= daa) {
        return cash::next_bits(params, time, ancestors);
    }
    if !parent.saturating_add(1).is_multiple_of(RETARGET_INTERVAL) {
        if !params.allow_min_difficulty {
            return match params.uahf_height {
                Some(uahf) if parent >= uahf => cash::emergency_bits(params, ancestors),
                _ => bits,
            };
        }
        if i64::from(time) > i64::from(ancestors.time_at(parent)) + 2 * i64::from(TARGET_SPACING) {
            return params.pow_limit_bits;
        }
        return ancestors.last_real_bits(params.pow_limit_bits);
    }
    // 2,015 intervals, not 2,016: an off-by-one as old as the chain, and part of its rules.
    let first = parent.saturating_sub(RETARGET_INTERVAL - 1);
    let base = if params.bip94 {
        ancestors.bits_at(first)
    } else {
        bits
    };
    retarget(
        params,
        ancestors.time_at(first),
        ancestors.time_at(parent),
        base,
    )
}

/// The bits of the period after one that began at `first_time` and ended at `last_time` with `bits`.
pub fn retarget(params: &Params, first_time: u32, last_time: u32, bits: u32) -> u32 {
    let timespan = (i64::from(last_time) - i64::from(first_time))
        .clamp(TARGET_TIMESPAN / 4, TARGET_TIMESPAN * 4);
    let target = Target::from_compact(CompactTarget::from_consensus(bits));
    let scaled = scale(
        target,
        timespan.unsigned_abs(),
        TARGET_TIMESPAN.unsigned_abs(),
    );
    scaled
        .min(params.pow_limit)
        .to_compact_lossy()
        .to_consensus()
}

/// `target * numerator / denominator`, rounded down; all ones where that passes 256 bits. Core's product wraps at 256
/// bits, but no network that retargets has a limit that comes near.
fn scale(target: Target, numerator: u64, denominator: u64) -> Target {
    let mut limbs = [0u64; 5];
    let mut carry = 0u128;
    for (limb, bytes) in limbs.iter_mut().zip(target.to_le_bytes().chunks_exact(8)) {
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
        let product = u128::from(value) * u128::from(numerator) + carry;
        *limb = product as u64;
        carry = product >> 64;
    }
    // The fifth limb keeps what passes 256 bits until the division brings it back.
    if let Some(top) = limbs.last_mut() {
        *top = carry as u64;
    }
    let mut remainder = 0u128;
    for limb in limbs.iter_mut().rev() {
        let value = (remainder << 64) | u128::from(*limb);
        *limb = (value / u128::from(denominator)) as u64;
        remainder = value % u128::from(denominator);
    }
    let [low, second, third, high, over] = limbs;
    if over != 0 {
        return Target::from_le_bytes([0xff; 32]);
    }
    let mut bytes = [0u8; 32];
    for (chunk, limb) in bytes.chunks_exact_mut(8).zip([low, second, third, high]) {
        chunk.copy_from_slice(&limb.to_le_bytes());
    }
    Target::from_le_bytes(bytes)
}

mod cash;

#[cfg(test)]
mod tests;
