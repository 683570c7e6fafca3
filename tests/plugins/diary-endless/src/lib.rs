//! Never comes to the end of a block.

const STATE_VERSION: u32 = 1;
const SHIFT: i64 = 0;
const FAULT: Fault = Fault::Endless;
const MIGRATES: bool = false;
const COUNT: Single<u64> = Single::new(b"calls");

table! {
    /// One row a call.
    pub table Pages of Page: Anchored "diary" {
        call: Integer,
    }
    key [];
    indexes [[call]];
}

include!("../../diary/src/diary.rs");
