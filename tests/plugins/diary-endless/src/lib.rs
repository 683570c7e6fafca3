//! Never comes to the end of a block.

const STATE_VERSION: u32 = 1;
const SHIFT: i64 = 0;
const TRAPS: bool = false;
const ENDLESS: bool = true;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

include!("../../diary/src/table.rs");
include!("../../diary/src/diary.rs");
