//! A plugin that imports a function outside of `wit/`, as one built for another system would. It must be refused with the name
//! of the import, before any of it runs.

// An import by hand is what this plugin is for; a plugin that means well needs none.
#![cfg_attr(target_family = "wasm", allow(unsafe_code))]

use blockmill_sdk::prelude::*;

#[cfg(target_family = "wasm")]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn open_file(path: *const u8, length: usize) -> i32;
}

/// What it opens, where it can: nowhere.
#[cfg(target_family = "wasm")]
fn open(path: &str) -> i32 {
    // SAFETY: the pointer and the length belong to one slice, which outlives the call.
    unsafe { open_file(path.as_ptr(), path.len()) }
}

/// Natively there is no host to refuse the import.
#[cfg(not(target_family = "wasm"))]
fn open(_path: &str) -> i32 {
    -1
}

/// The plugin.
pub struct Forbidden;

impl Processor for Forbidden {
    fn describe() -> Descriptor {
        Descriptor::new(
            "forbidden",
            env!("CARGO_PKG_VERSION"),
            "imports what no host grants",
        )
    }

    fn start(_info: &StartInfo) -> Result<Self, String> {
        match open("/etc/passwd") {
            0.. => Ok(Self),
            _ => Err("the file does not open".into()),
        }
    }
}

export_plugin!(Forbidden);
