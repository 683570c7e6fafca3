//! A plugin that imports a function outside of `wit/`, as one built for another system would. It must be refused with the name
//! of the import, before any of it runs.

// An import by hand is what this plugin is for; a plugin that means well needs none.
#![cfg_attr(target_family = "wasm", allow(unsafe_code))]

#[cfg(target_family = "wasm")]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn open_file(path: *const u8, length: usize) -> i32;
}

/// Keeps the import from being removed as unused.
#[cfg(target_family = "wasm")]
#[unsafe(no_mangle)]
pub extern "C" fn forbidden() -> i32 {
    let path = b"/etc/passwd";
    // SAFETY: the pointer and the length belong to one static slice.
    unsafe { open_file(path.as_ptr(), path.len()) }
}
