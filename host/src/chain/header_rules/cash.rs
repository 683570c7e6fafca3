//! The difficulty of the chains that left Bitcoin in August 2017: the emergency adjustment of that day, and what followed it
//! in November, a target from the work and the time of the last 144 blocks.
//!
//! The rules are those of Bitcoin SV's `pow.cpp`, and so are the values in the tests.

use bitcoin::{CompactTarget, Target, Work};

use super::{Ancestry, scale};
use crate::network::{Params, TARGET_SPACING};

/// Blocks between the two ends that the time and the work are measured at.
const WINDOW: u32 = 144;
/// Six blocks that took longer than this make the next one easier, in seconds.
const EMERGENCY: i64 = 12 * 60 * 60;

/// The compact target of a block between two retargets (August to November 2017): the parent's, or one by a quarter easier
/// when the medians of the last six blocks lie twelve hours apart.
pub(super) fn emergency_bits(params: &Params, ancestors: &impl Ancestry) -> u32 {
    let parent = ancestors.parent_height();
    let bits = ancestors.bits_at(parent);
    if bits == params.pow_limit_bits {
        return bits;
    }
    let before = ancestors.median_time_at(parent.saturating_sub(6));
    if i64::from(ancestors.median_time_past()) - i64::from(before) < EMERGENCY {
        return bits;
    }
    let target = Target::from_compact(CompactTarget::from_consensus(bits));
    // A quarter of it is added, not five quarters taken: the two round differently.
    let quarter = scale(target, 1, 4);
    add(target, quarter)
        .min(params.pow_limit)
        .to_compact_lossy()
        .to_consensus()
}

/// The compact target of a block from November 2017 on, if its time is `time`.
pub(super) fn next_bits(params: &Params, time: u32, ancestors: &impl Ancestry) -> u32 {
    let parent = ancestors.parent_height();
    let late = i64::from(ancestors.time_at(parent)) + 2 * i64::from(TARGET_SPACING);
    if params.allow_min_difficulty && i64::from(time) > late {
        return params.pow_limit_bits;
    }
    let last = suitable(ancestors, parent);
    let first = suitable(ancestors, parent.saturating_sub(WINDOW));
    let span = i64::from(ancestors.time_at(last)) - i64::from(ancestors.time_at(first));
    let spacing = i64::from(TARGET_SPACING);
    let span = span.clamp(72 * spacing, 288 * spacing).unsigned_abs();
    // The two may have changed places by their times, but not so far that the later one has less work.
    let work = ancestors.work_at(last) - ancestors.work_at(first);
    let work = scale(
        Target::from_le_bytes(work.to_le_bytes()),
        u64::from(TARGET_SPACING),
        span,
    );
    // The rule asks for (2^256 - W) / W, which is 2^256 / W less one; `to_target` gives 2^256 / (W + 1).
    let less = subtract_one(work.to_le_bytes());
    let target = Work::from_le_bytes(less).to_target();
    Target::from_le_bytes(subtract_one(target.to_le_bytes()))
        .min(params.pow_limit)
        .to_compact_lossy()
        .to_consensus()
}

/// The height, of the three up to `height`, whose block has the middle time; of equal times, which one is what the sorting
/// network of the rule makes of them.
fn suitable(ancestors: &impl Ancestry, height: u32) -> u32 {
    let at = |back: u32| {
        let height = height.saturating_sub(back);
        (ancestors.time_at(height), height)
    };
    let (mut a, mut b, mut c) = (at(2), at(1), at(0));
    if a.0 > c.0 {
        std::mem::swap(&mut a, &mut c);
    }
    if a.0 > b.0 {
        std::mem::swap(&mut a, &mut b);
    }
    if b.0 > c.0 {
        std::mem::swap(&mut b, &mut c);
    }
    b.1
}

/// The sum, or all ones where it passes 256 bits.
fn add(one: Target, other: Target) -> Target {
    let mut bytes = one.to_le_bytes();
    let mut carry = 0u16;
    for (byte, more) in bytes.iter_mut().zip(other.to_le_bytes()) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    match carry {
        0 => Target::from_le_bytes(bytes),
        _ => Target::from_le_bytes([0xff; 32]),
    }
}

/// One less; zero stays zero.
fn subtract_one(mut bytes: [u8; 32]) -> [u8; 32] {
    if bytes == [0; 32] {
        return bytes;
    }
    for byte in &mut bytes {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
