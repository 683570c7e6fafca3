#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod blocks;
mod compact;
mod connections;
mod headers;
mod hostile;
mod network;
mod peers;
mod presync;
mod refetch;
mod source;
mod streams;
mod throughput;
mod transactions;
