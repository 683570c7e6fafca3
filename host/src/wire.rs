//! The wire: bytes of one peer into messages and back, and the state of one connection. No socket and no clock.

pub mod codec;
pub mod message;
pub mod peer;
pub mod transport;

pub use codec::{BlockPiece, Decoder, RawMessage, WireError};
pub use message::{Message, PayloadError, Version};
pub use peer::{Misbehaviour, Peer, PeerConfig, PeerStep};
pub use transport::{Entropy, Opening, Transport, TransportError, TransportKind};

/// A moment: milliseconds since the unix epoch, as the caller's clock says.
///
/// Wall time rather than a monotonic clock, because a machine that slept must see that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `seconds` after the unix epoch.
    pub const fn from_secs(seconds: u64) -> Moment {
        Moment(seconds.saturating_mul(1000))
    }

    /// Whole seconds since the unix epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time since `earlier`; zero when the clock went back.
    pub const fn since(self, earlier: Moment) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<std::time::Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: std::time::Duration) -> Moment {
        Moment(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
