//! The first version.

const STATE_VERSION: u32 = 1;
const SHIFT: i64 = 0;
const TRAPS: bool = false;
const ENDLESS: bool = false;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

include!("table.rs");
include!("diary.rs");
