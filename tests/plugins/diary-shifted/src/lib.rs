//! Writes other numbers than the first version from the same state.

const STATE_VERSION: u32 = 1;
const SHIFT: i64 = 1000;
const TRAPS: bool = false;
const ENDLESS: bool = false;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

include!("../../diary/src/table.rs");
include!("../../diary/src/diary.rs");
