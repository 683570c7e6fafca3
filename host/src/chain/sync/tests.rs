#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod blocks;
mod headers;
mod network;
mod peers;
mod refetch;
mod throughput;
mod transactions;
