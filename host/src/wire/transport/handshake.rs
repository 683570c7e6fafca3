//! The handshake of version 2: keys, garbage, its terminator, decoys, the version packet.
//!
//! The crate's states borrow the garbage of both sides, which a value that waits for bytes could not hold beside them.
//! So the handshake is an `async` function that awaits bytes and nothing else, and is polled when there are more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bip324::{GarbageResult, Initialized, ReceivedKey, Role, VersionResult};
use bitcoin::secp256k1::Secp256k1;
use bytes::{Buf, Bytes, BytesMut};

use super::TransportError;
use super::encrypted::{MAX_PACKET, Packets};
use super::entropy::Secret;

/// What follows the magic in the first message of version 1.
pub(super) const V1_VERSION: &[u8; 12] = b"version\0\0\0\0\0";
/// Bytes of a key.
const KEY: usize = 64;
/// The longest garbage and its terminator.
const MAX_GARBAGE_AND_TERMINATOR: usize = 4095 + 16;

/// What goes in and out while the handshake waits.
#[derive(Debug, Default)]
struct Pipe {
    input: BytesMut,
    output: Vec<Bytes>,
}

/// Both ends of the pipe; the lock is never waited for, since one caller owns both ends.
#[derive(Clone, Debug, Default)]
struct SharedPipe(Arc<Mutex<Pipe>>);

impl SharedPipe {
    fn with<T>(&self, act: impl FnOnce(&mut Pipe) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(&self, bytes: Vec<u8>) {
        self.with(|pipe| pipe.output.push(bytes.into()));
    }

    /// Exactly `count` bytes, once they are there.
    async fn read(&self, count: usize) -> BytesMut {
        std::future::poll_fn(|_| {
            self.with(|pipe| match pipe.input.len() >= count {
                true => Poll::Ready(pipe.input.split_to(count)),
                false => Poll::Pending,
            })
        })
        .await
    }

    async fn read_array<const N: usize>(&self) -> [u8; N] {
        let mut array = [0; N];
        self.read(N).await.copy_to_slice(&mut array);
        array
    }

    /// What there is, at least one byte and at most `limit`.
    async fn read_some(&self, limit: usize) -> BytesMut {
        std::future::poll_fn(|_| {
            self.with(|pipe| match pipe.input.len().min(limit) {
                0 => Poll::Pending,
                count => Poll::Ready(pipe.input.split_to(count)),
            })
        })
        .await
    }

    /// Gives bytes back, to be read first.
    fn unread(&self, bytes: &[u8]) {
        self.with(|pipe| {
            let mut input = BytesMut::with_capacity(bytes.len() + pipe.input.len());
            input.extend_from_slice(bytes);
            input.extend_from_slice(&pipe.input);
            pipe.input = input;
        });
    }
}

type Run = dyn Future<Output = Result<bip324::CipherSession, TransportError>> + Send;

/// A handshake under way.
pub(super) struct Handshake {
    pipe: SharedPipe,
    /// Gone once the handshake has ended. In a lock that is never taken, so that it may be shared by reference.
    run: Option<std::sync::Mutex<Pin<Box<Run>>>>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").finish_non_exhaustive()
    }
}

impl Handshake {
    /// A handshake on the network with this magic. Nothing happens before [`advance`](Self::advance).
    pub(super) fn new(magic: [u8; 4], initiator: bool, secret: Secret) -> Handshake {
        let pipe = SharedPipe::default();
        let run = Box::pin(shake_hands(pipe.clone(), magic, initiator, secret));
        Handshake {
            pipe,
            run: Some(std::sync::Mutex::new(run)),
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.pipe.with(|pipe| pipe.input.extend_from_slice(bytes));
    }

    /// Goes as far as the bytes reach; the packets that follow, once it is done.
    pub(super) fn advance(&mut self) -> Result<Option<Packets>, TransportError> {
        let Some(run) = &mut self.run else {
            return Ok(None);
        };
        let run = run.get_mut().unwrap_or_else(PoisonError::into_inner);
        match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(None),
            Poll::Ready(session) => {
                self.run = None;
                let input = self.pipe.with(|pipe| std::mem::take(&mut pipe.input));
                Ok(Some(Packets::new(session?, input)))
            }
        }
    }

    pub(super) fn take_output(&mut self) -> Vec<Bytes> {
        self.pipe.with(|pipe| std::mem::take(&mut pipe.output))
    }

    /// Lets go of everything.
    pub(super) fn abandon(&mut self) {
        self.run = None;
        self.pipe.with(|pipe| *pipe = Pipe::default());
    }
}

async fn shake_hands(
    pipe: SharedPipe,
    magic: [u8; 4],
    initiator: bool,
    mut secret: Secret,
) -> Result<bip324::CipherSession, TransportError> {
    let role = if initiator {
        Role::Initiator
    } else {
        Role::Responder
    };
    let garbage = secret.garbage();
    let curve = Secp256k1::signing_only();
    let handshake = bip324::Handshake::new_with_rng(magic, role, &mut secret, &curve)
        .map_err(|_| TransportError::Keys)?;
    let mut ours = vec![0; bip324::Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake
        .send_key(Some(&garbage), &mut ours)
        .map_err(error)?;
    pipe.send(ours);

    let key: [u8; KEY] = pipe.read_array().await;
    // Another network's version 1 would else be taken for a key, and be waited for.
    if !initiator
        && let Some((other, rest)) = key.split_first_chunk::<4>()
        && rest.starts_with(V1_VERSION)
    {
        return Err(TransportError::OtherNetwork(*other));
    }
    let handshake = handshake.receive_key(key).map_err(error)?;
    let mut version = vec![0; bip324::Handshake::<ReceivedKey<'_>>::send_version_len(None)];
    let mut handshake = handshake.send_version(&mut version, None).map_err(error)?;
    pipe.send(version);

    let mut heard: Vec<u8> = Vec::new();
    let (mut handshake, consumed) = loop {
        match handshake.receive_garbage(&heard).map_err(error)? {
            GarbageResult::FoundGarbage {
                handshake,
                consumed_bytes,
            } => break (handshake, consumed_bytes),
            GarbageResult::NeedMoreData(again) => handshake = again,
        }
        let room = MAX_GARBAGE_AND_TERMINATOR.saturating_sub(heard.len());
        heard.extend_from_slice(&pipe.read_some(room).await);
    };
    pipe.unread(heard.get(consumed..).unwrap_or_default());

    loop {
        let length = handshake
            .decrypt_packet_len(pipe.read_array().await)
            .map_err(error)?;
        if length > MAX_PACKET {
            return Err(TransportError::PacketTooLong {
                length,
                limit: MAX_PACKET,
            });
        }
        let mut packet = pipe.read(length).await;
        match handshake.receive_version(&mut packet).map_err(error)? {
            VersionResult::Complete { cipher } => return Ok(cipher),
            VersionResult::Decoy(again) => handshake = again,
        }
    }
}

fn error(error: bip324::Error) -> TransportError {
    match error {
        bip324::Error::V1Protocol => TransportError::VersionOne,
        bip324::Error::NoGarbageTerminator => TransportError::Garbage,
        bip324::Error::SecretGeneration(_) => TransportError::Keys,
        // The rest are about our own buffers, whose sizes the crate told us.
        _ => TransportError::Decrypt,
    }
}
