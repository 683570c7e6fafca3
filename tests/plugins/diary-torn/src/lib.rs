//! Traps with blocks that the first version takes.

const STATE_VERSION: u32 = 1;
const SHIFT: i64 = 0;
const TRAPS: bool = true;
const ENDLESS: bool = false;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

include!("../../diary/src/table.rs");
include!("../../diary/src/diary.rs");
