//! What becomes of bytes between two machines: they arrive late, in pieces, and in order.

use std::time::Duration;

use blockmill::wire::Moment;
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A piece is no larger than this.
const PIECE: usize = 16 << 10;
/// What a lost packet costs: it is sent again.
const RESENT: Duration = Duration::from_millis(400);

/// One direction of a connection.
#[derive(Clone, Debug)]
pub struct Link {
    /// From one end to the other.
    pub latency: Duration,
    /// Bytes a second.
    pub bandwidth: u64,
    /// One piece in so many is lost and sent again; 0 for none.
    pub loss: u32,
    /// Blocks take so many times as long as their bytes: a small one stands for a large one, which would be slow to make and to check.
    pub padding: u64,
    /// When what was sent so far is through, in microseconds: a millisecond is long for a fast line.
    free: u64,
}

impl Link {
    /// A line that nothing was sent on.
    pub fn new(latency: Duration, bandwidth: u64, loss: u32) -> Link {
        Link {
            latency,
            bandwidth: bandwidth.max(1),
            loss,
            padding: 1,
            free: 0,
        }
    }

    /// When each piece of `bytes` arrives.
    pub fn send(
        &mut self,
        bytes: &Bytes,
        now: Moment,
        chance: &mut ChaCha8Rng,
    ) -> Vec<(Moment, Bytes)> {
        let padding = match bytes.get(4..16) {
            Some(b"block\0\0\0\0\0\0\0") => self.padding.max(1),
            _ => 1,
        };
        // What is padded comes in as many pieces as what it stands for.
        let most = (PIECE / padding as usize).max(1);
        let mut pieces = Vec::with_capacity(bytes.len() / most + 1);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(most));
            let start = self.free.max(now.0 * 1_000);
            self.free = start + piece.len() as u64 * padding * 1_000_000 / self.bandwidth;
            if self.loss > 0 && chance.random_range(0..self.loss) == 0 {
                self.free += RESENT.as_micros() as u64;
            }
            pieces.push((Moment(self.free / 1_000) + self.latency, piece));
        }
        pieces
    }
}
