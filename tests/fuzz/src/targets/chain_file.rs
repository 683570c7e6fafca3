//! A chain's parameters as a file.

use blockmill::network::chain_file;

use super::Verdict;
use crate::memory;

/// The bytes are the file.
pub fn run(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else {
        return Verdict::Refused;
    };
    // A parsed TOML document takes up many times its text.
    memory::bounded((1 << 20) + 2_000 * data.len(), || {
        match chain_file::read(text, "a-file.toml") {
            Ok(params) => {
                assert!((1..=32).contains(&params.name.len()));
                assert_ne!(params.default_port, 0);
                assert_ne!(params.halving_interval, 0);
                assert!(params.segwit == params.max_block_sizes.is_empty());
                assert!(params.largest_block() > 0);
                for height in [0, 1, 500_000, u32::MAX] {
                    assert!(
                        params
                            .max_block_size(height)
                            .is_none_or(|size| size <= params.largest_block())
                    );
                }
                Verdict::Taken
            }
            Err(problem) => {
                assert!(!problem.is_empty());
                Verdict::Refused
            }
        }
    })
}
