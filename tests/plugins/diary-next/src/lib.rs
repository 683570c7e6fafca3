//! Counts under another key; takes over what the first version counted.

const STATE_VERSION: u32 = 2;
const SHIFT: i64 = 0;
const FAULT: Fault = Fault::None;
const MIGRATES: bool = true;
const COUNT: Single<u64> = Single::new(b"count");

table! {
    /// One row a call.
    pub table Pages of Page: Anchored "diary" {
        call: Integer,
    }
    key [];
    indexes [[call]];
}

include!("../../diary/src/diary.rs");
