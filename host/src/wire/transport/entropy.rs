//! Where the secrets of handshakes come from.

use bip324::FillBytes;
use bitcoin::hashes::{Hash, HashEngine, sha256};

/// The most garbage that a side may send (BIP324).
const MAX_GARBAGE: u32 = 4095;

/// A source of secrets: the system's, or a seed for a simulation that must replay.
#[derive(Clone, Debug, Default)]
pub enum Entropy {
    /// The operating system's random numbers.
    #[default]
    System,
    /// A seed and how many secrets it gave. For tests: whoever knows the seed reads along.
    Seeded(u64, u64),
}

impl Entropy {
    /// The next secret; nothing when the system has no random numbers.
    pub fn secret(&mut self) -> Option<Secret> {
        let mut seed = [0; 32];
        match self {
            Entropy::System => getrandom::fill(&mut seed).ok()?,
            Entropy::Seeded(seed_number, count) => {
                *count = count.wrapping_add(1);
                let mut engine = sha256::Hash::engine();
                engine.input(b"transport secret");
                engine.input(&seed_number.to_le_bytes());
                engine.input(&count.to_le_bytes());
                seed = sha256::Hash::from_engine(engine).to_byte_array();
            }
        }
        Some(Secret(seed))
    }
}

/// 256 random bits for one handshake. Its key and its garbage come from them.
#[derive(Clone, Copy)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    fn part(&self, purpose: &[u8], number: u32) -> [u8; 32] {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.0);
        engine.input(purpose);
        engine.input(&number.to_le_bytes());
        sha256::Hash::from_engine(engine).to_byte_array()
    }

    /// Up to 4,095 bytes that hide how long a handshake is.
    pub(super) fn garbage(&self) -> Vec<u8> {
        let [a, b, c, d, ..] = self.part(b"garbage length", 0);
        let length = (u32::from_le_bytes([a, b, c, d]) % (MAX_GARBAGE + 1)) as usize;
        let mut garbage = Vec::with_capacity(length + 32);
        let mut number = 0;
        while garbage.len() < length {
            garbage.extend_from_slice(&self.part(b"garbage", number));
            number += 1;
        }
        garbage.truncate(length);
        garbage
    }
}

impl FillBytes for Secret {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.part(b"key", 0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
