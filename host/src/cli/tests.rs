#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use clap::CommandFactory;

use super::*;
