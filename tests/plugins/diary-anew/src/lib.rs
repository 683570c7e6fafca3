//! Has another table, so that it has to begin anew.

const STATE_VERSION: u32 = 3;
const SHIFT: i64 = 0;
const TRAPS: bool = false;
const ENDLESS: bool = false;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

table! {
    /// One row a call.
    pub table Pages of Page: Anchored "diary_anew" {
        call: Integer,
    }
    key [];
    indexes [[call]];
}

include!("../../diary/src/diary.rs");
