//! tx-writer
