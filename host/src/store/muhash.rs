//! MuHash3072: a hash of a set, which does not depend on the order in which its elements are taken in, so that threads can
//! share the work. As in Bitcoin Core's `crypto/muhash`.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use crypto_bigint::{Limb, U3072};
use sha2::{Digest, Sha256};

/// The modulus is 2^3072 minus this, a safe prime.
const PRIME_DIFFERENCE: u32 = 1_103_717;
/// Bytes of a number.
const BYTES: usize = 384;

/// The product of a set's elements.
#[derive(Debug, Clone)]
pub(super) struct MuHash(U3072);

impl MuHash {
    /// The empty set.
    pub(super) fn new() -> Self {
        Self(U3072::ONE)
    }

    /// Adds an element.
    pub(super) fn insert(&mut self, element: &[u8]) {
        let key: [u8; 32] = Sha256::digest(element).into();
        let mut number = [0u8; BYTES];
        ChaCha20::new(&key.into(), &[0u8; 12].into()).apply_keystream(&mut number);
        self.multiply(&U3072::from_le_slice(&number));
    }

    /// Adds all elements of another set.
    pub(super) fn combine(&mut self, other: &Self) {
        self.multiply(&other.0);
    }

    fn multiply(&mut self, by: &U3072) {
        self.0 = self.0.mul_mod_special(by, Limb::from_u32(PRIME_DIFFERENCE));
    }

    /// The set's hash, in internal byte order.
    pub(super) fn finish(&self) -> [u8; 32] {
        // A product of one factor may not be reduced.
        let product = self
            .0
            .mul_mod_special(&U3072::ONE, Limb::from_u32(PRIME_DIFFERENCE));
        let mut bytes = [0u8; BYTES];
        for (to, word) in bytes
            .chunks_exact_mut(size_of::<crypto_bigint::Word>())
            .zip(product.to_words())
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Sha256::digest(bytes).into()
    }
}
