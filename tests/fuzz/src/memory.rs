//! What a decoder may take up in memory.

use std::alloc::System;

use cap::Cap;

/// Counts what is allocated in this process. One target runs at a time.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs a part of a target that may take up so many bytes more than there are now. What passes that aborts the process
/// ("memory allocation of … bytes failed"): a decoder that believes a length field is found out by it.
pub fn bounded<T>(bytes: usize, part: impl FnOnce() -> T) -> T {
    let limit = ALLOCATOR.allocated().saturating_add(bytes);
    let _ = ALLOCATOR.set_limit(limit);
    let result = part();
    let _ = ALLOCATOR.set_limit(usize::MAX);
    result
}

/// The bound of most decoders: so many bytes for each of the input, and a megabyte.
pub fn bounded_by<T>(data: &[u8], each: usize, part: impl FnOnce() -> T) -> T {
    bounded((1 << 20) + each * data.len(), part)
}
