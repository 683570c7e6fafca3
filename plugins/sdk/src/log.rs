//! The host's log. Lines show the plugin's name; at most 100 lines and 64 KiB a call are kept.

pub use crate::bindings::blockmill::plugin::log::Level;

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::log as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::log as host;

/// Writes a line.
pub fn write(level: Level, message: &str) {
    host::write(level, message);
}

/// Something that a person must see to.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message.as_ref());
}

/// Something that a person may want to see to.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message.as_ref());
}

/// Something that a person running the host wants to read.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message.as_ref());
}

/// Something for whoever looks for a fault.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message.as_ref());
}
