#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use tokio::net::TcpListener;

const MINUTE: Duration = Duration::from_secs(60);

/// Our end of a connection, the peer's end, and what we read from it.
async fn connected() -> (Connection, TcpStream, mpsc::Receiver<SocketEvent>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, addr) = listener.accept().await.unwrap();
    let (events, received) = mpsc::channel(64);
    (open(PeerId(1), addr, stream, events), client, received)
}

/// Sends until so much waits that the kernel does not take.
async fn fill(connection: &Connection, at_least: usize) {
    let waiting = || connection.queued.load(Ordering::Acquire);
    let mut full_for = 0;
    for _ in 0..10_000 {
        if waiting() < at_least {
            full_for = 0;
            assert!(connection.send(Bytes::from(vec![7; 200_000])));
        } else {
            full_for += 1;
        }
        if full_for > 20 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the kernel takes everything");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_until_it_does() {
    let (connection, mut client, mut received) = connected().await;
    client.write_all(b"ping").await.unwrap();
    let event = tokio::time::timeout(MINUTE, received.recv()).await.unwrap();
    assert!(matches!(event, Some(SocketEvent::Received { bytes, .. }) if &bytes[..] == b"ping"));

    fill(&connection, PAUSE_ABOVE + 1).await;
    // What was being waited for before still comes.
    client.write_all(b"a").await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(1), received.recv()).await;
    client.write_all(b"b").await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(300), received.recv()).await;
    assert!(nothing.is_err(), "read although it does not read");

    let mut left = vec![0; 1 << 20];
    let mut rest = Vec::new();
    let until = tokio::time::Instant::now() + MINUTE;
    while !rest.ends_with(b"b") {
        assert!(tokio::time::Instant::now() < until, "never read again");
        tokio::select! {
            read = client.read(&mut left) => assert!(read.unwrap() > 0),
            event = received.recv() => match event {
                Some(SocketEvent::Received { bytes, .. }) => rest.extend_from_slice(&bytes),
                _ => panic!("it ended"),
            },
        }
    }
    assert_eq!(rest.len() + usize::from(first.is_ok()), 2);
}

#[tokio::test]
async fn a_queue_that_goes_on_growing_has_an_end_and_the_longest_message_fits() {
    let (connection, _client, _received) = connected().await;
    fill(&connection, PAUSE_ABOVE + 1).await;
    let longest = Bytes::from(vec![7; crate::wire::codec::MAX_PAYLOAD + 24]);
    assert!(connection.send(longest));
    let mut sent = 0;
    while connection.send(Bytes::from(vec![7; 100_000])) {
        sent += 1;
        assert!(sent < 1_000, "it grows without end");
    }
    assert!(connection.queued.load(Ordering::Acquire) <= MAX_QUEUED + 100_000);
}

#[tokio::test]
async fn a_peer_that_resets_while_it_is_not_read_is_gone_at_once() {
    let (connection, mut client, mut received) = connected().await;
    fill(&connection, PAUSE_ABOVE + 1).await;
    // What was being waited for before still comes; from then on it is not read.
    client.write_all(b"a").await.unwrap();
    let event = tokio::time::timeout(MINUTE, received.recv()).await.unwrap();
    assert!(matches!(event, Some(SocketEvent::Received { .. })));
    // Closed with bytes in it that nobody has read: the kernel sends a reset.
    drop(client);
    let event = tokio::time::timeout(Duration::from_secs(20), received.recv()).await;
    let event = event.expect("nobody says that it is gone");
    assert!(matches!(event, Some(SocketEvent::Closed { peer }) if peer == PeerId(1)));
}

#[tokio::test]
async fn nothing_is_read_of_a_connection_before_it_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // It hangs up at once, as nodes do with those that they have banned.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"bye").await;
        }
    });
    // The first of them takes the last place in the queue.
    let (events, mut received) = mpsc::channel(1);
    for _ in 0..20 {
        let target = Target::Addr(addr);
        let connecting = connect(PeerId(1), addr, target, None, MINUTE, events.clone());
        let connecting = tokio::spawn(connecting);
        tokio::time::sleep(Duration::from_millis(2)).await;
        let first = tokio::time::timeout(MINUTE, received.recv()).await.unwrap();
        let Some(SocketEvent::Connected { stream, .. }) = first else {
            panic!("something else came first");
        };
        connecting.await.unwrap();
        assert!(received.try_recv().is_err());
        let _open = open(PeerId(1), addr, stream, events.clone());
        let next = tokio::time::timeout(MINUTE, received.recv()).await.unwrap();
        assert!(matches!(next, Some(SocketEvent::Received { .. })));
        let last = tokio::time::timeout(MINUTE, received.recv()).await.unwrap();
        assert!(matches!(last, Some(SocketEvent::Closed { .. })));
    }
}
