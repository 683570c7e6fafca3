//! What a decoder may take up in memory.

use std::alloc::System;
use std::sync::Once;

use cap::Cap;

/// What the `bitcoin` crate may take up beside what it reads: a megabyte for any list whose length it has read, and four bytes
/// for each of up to four million items that a witness claims to have.
pub const THE_CRATE: usize = 24 << 20;

/// Counts what is allocated in this process. One target runs at a time.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs a part of a target that may take up so many bytes more than there are now. What passes that aborts the process
/// ("memory allocation of … bytes failed"): a decoder that believes a length field is found out by it.
pub fn bounded<T>(bytes: usize, part: impl FnOnce() -> T) -> T {
    static ON_PANIC: Once = Once::new();
    ON_PANIC.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Showing where it was takes memory of its own.
            lift();
            hook(panic);
        }));
    });
    let limit = ALLOCATOR.allocated().saturating_add(bytes);
    let _ = ALLOCATOR.set_limit(limit);
    let result = part();
    lift();
    result
}

fn lift() {
    let _ = ALLOCATOR.set_limit(usize::MAX);
}

/// The bound of most decoders: so many bytes for each of the input, and a megabyte.
pub fn bounded_by<T>(data: &[u8], each: usize, part: impl FnOnce() -> T) -> T {
    bounded((1 << 20) + each * data.len(), part)
}
