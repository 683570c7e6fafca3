// The table of every version but the one that begins anew.

table! {
    /// One row a call.
    pub table Pages of Page: Anchored "diary" {
        call: Integer,
    }
    key [];
    indexes [[call]];
}
