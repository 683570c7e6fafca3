//! Counts under another key; takes over what the first version counted.

const STATE_VERSION: u32 = 2;
const SHIFT: i64 = 0;
const TRAPS: bool = false;
const ENDLESS: bool = false;
const MIGRATES: bool = true;
const COUNT: Single<u64> = Single::new(b"count");

include!("../../diary/src/table.rs");
include!("../../diary/src/diary.rs");
