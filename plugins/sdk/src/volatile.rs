//! A small key-value space for what depends on the memory pool: never on disk, emptied when the pool starts anew, seen by
//! queries. At most 16 MiB. Writable in `start`, `on_block` and `on_mempool`.

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::volatile as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::volatile as host;

/// The value at a key.
pub fn get(key: &[u8]) -> Option<Vec<u8>> {
    host::get(key)
}

/// Sets the value at a key.
pub fn put(key: &[u8], value: &[u8]) {
    host::put(key, value);
}

/// Removes a key.
pub fn delete(key: &[u8]) {
    host::delete(key);
}
