//! What a SOCKS5 proxy answers.

use std::sync::LazyLock;

use blockmill::net::{Proxy, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

use super::Verdict;
use crate::{Input, memory};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

/// Whether a name or an address is connected to, and in what pieces the answer comes; then the answer.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let target = match input.byte() & 1 {
        0 => Target::Name("a.onion".to_owned(), 8_333),
        _ => Target::Addr(([192, 0, 2, 7], 8_333).into()),
    };
    let piece = usize::from(input.byte()) + 1;
    let answer = input.rest();
    LazyLock::force(&RUNTIME);
    memory::bounded((1 << 20) + 16 * data.len(), || {
        RUNTIME.block_on(async {
            let whole = connect(&target, answer, answer.len().max(1)).await;
            assert_eq!(whole, connect(&target, answer, piece).await);
            // What comes behind the answer is the peer's and is not read.
            let left = whole.as_ref().map_or(0, Vec::len);
            assert!(whole.is_none() || answer.len() - left <= 2 + 2 + 262);
            assert!(whole.as_ref().is_none_or(|left| answer.ends_with(left)));
            Verdict::taken(whole.is_some())
        })
    })
}

/// What is left of the answer after the proxy connected, if it did.
async fn connect(target: &Target, answer: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
    let proxy = async {
        for piece in answer.chunks(piece) {
            if theirs.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = theirs.shutdown().await;
        // Until the other end hangs up, it is read.
        let mut asked = Vec::new();
        let _ = theirs.read_to_end(&mut asked).await;
        assert!(asked.starts_with(&[5]));
    };
    let client = async {
        let mut stream = Proxy::connect_over(ours, target).await.ok()?;
        let mut left = Vec::new();
        stream.read_to_end(&mut left).await.ok()?;
        Some(left)
    };
    let ((), left) = tokio::join!(proxy, client);
    left
}
