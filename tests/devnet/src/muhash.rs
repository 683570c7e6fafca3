//! MuHash3072, the set hash that Bitcoin Core's `gettxoutsetinfo muhash` prints.
//!
//! An element is the ChaCha20 key stream (384 bytes, zero nonce, counter 0) under the key SHA256(bytes), read as a little
//! endian number; a set is the product of its elements modulo 2^3072 − 1103717. Here sets are only ever multiplied
//! together from scratch, so there is no division.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};

/// 2^3072 minus the modulus.
const MODULUS_GAP: u32 = 1_103_717;
/// Bytes of a number below the modulus.
const ELEMENT_LEN: usize = 384;

/// A running product of elements.
#[derive(Clone, Debug)]
pub struct MuHash {
    product: BigUint,
    modulus: BigUint,
}

impl Default for MuHash {
    fn default() -> Self {
        let modulus = (BigUint::from(1_u32) << (ELEMENT_LEN * 8)) - BigUint::from(MODULUS_GAP);
        Self {
            product: BigUint::from(1_u32),
            modulus,
        }
    }
}

impl MuHash {
    /// Adds one element, given as the bytes that are hashed into it.
    pub fn insert(&mut self, bytes: &[u8]) {
        let key = Sha256::digest(bytes);
        let mut stream = [0_u8; ELEMENT_LEN];
        ChaCha20::new(&<[u8; 32]>::from(key).into(), &[0; 12].into()).apply_keystream(&mut stream);
        self.product = &self.product * BigUint::from_bytes_le(&stream) % &self.modulus;
    }

    /// Joins two sets.
    pub fn combine(&mut self, other: &Self) {
        self.product = &self.product * &other.product % &self.modulus;
    }

    /// SHA256 of the 384 bytes of the product, in internal byte order (Core displays it reversed).
    pub fn finish(&self) -> [u8; 32] {
        let mut bytes = self.product.to_bytes_le();
        bytes.resize(ELEMENT_LEN, 0);
        Sha256::digest(&bytes).into()
    }
}
