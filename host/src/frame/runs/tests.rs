#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use crate::chain::fixtures;
use bitcoin::consensus::serialize;

/// The block in runs, whose bytes come in pieces of this size.
fn runs(raw: &[u8], piece: usize, target: usize) -> Result<Vec<Run>, DecodeError> {
    let mut cut = Runs::new(raw.len() as u64, target, 1 << 20);
    let mut found = Vec::new();
    for piece in raw.chunks(piece) {
        cut.push(piece)?;
        while let Some(run) = cut.next()? {
            found.push(run);
        }
    }
    assert!(cut.is_finished(), "it wants more");
    Ok(found)
}

fn block() -> Vec<u8> {
    let genesis = crate::network::Network::Regtest.params().genesis_header;
    let mut transactions = vec![fixtures::coinbase(9, 1)];
    for n in 0..300 {
        let mut tx = fixtures::spend(n);
        tx.output[0].script_pubkey = vec![0x6a; (n as usize * 37) % 900].into();
        if n % 3 == 0 {
            tx.input[0].witness = bitcoin::Witness::from_slice(&[vec![5; n as usize]]);
        }
        transactions.push(tx);
    }
    serialize(&fixtures::block(&genesis, transactions))
}

fn same(raw: &[u8], runs: &[Run]) {
    let whole = Frame::decode(Bytes::copy_from_slice(raw)).unwrap();
    let txids: Vec<u8> = runs
        .iter()
        .flat_map(|run| run.frame.columns.transactions.txids.clone())
        .collect();
    assert_eq!(txids, whole.columns.transactions.txids);
    let values: Vec<u64> = runs
        .iter()
        .flat_map(|run| run.frame.columns.outputs.values.clone())
        .collect();
    assert_eq!(values, whole.columns.outputs.values);
    let mut first = 0;
    for (at, run) in runs.iter().enumerate() {
        assert_eq!((run.first, run.of as usize), (first, whole.tx_count()));
        assert_eq!(
            (run.frame.hash, run.frame.header),
            (whole.hash, whole.header)
        );
        assert_eq!(run.last, at + 1 == runs.len());
        first += run.frame.tx_count() as u32;
    }
}

#[test]
fn the_runs_are_the_block_whatever_the_pieces() {
    let raw = block();
    let of_one_piece = runs(&raw, raw.len(), 10_000).unwrap();
    assert!(of_one_piece.len() > 8);
    for piece in [1, 7, 80, 81, 1_000, 33_333] {
        let found = runs(&raw, piece, 10_000).unwrap();
        same(&raw, &found);
        let places = |runs: &[Run]| runs.iter().map(|run| run.first).collect::<Vec<_>>();
        assert_eq!(places(&found), places(&of_one_piece));
        assert!(found.iter().all(|run| run.frame.raw.len() < 10_000 + 2_000));
    }
    if let Some(raw) = fixtures::bytes("blocks/mainnet-800000.raw") {
        same(&raw, &runs(&raw, 65_536, 200_000).unwrap());
    }
}

#[test]
fn bytes_that_are_no_block_are_refused() {
    let raw = block();
    // Cut short, with the rest announced and not sent.
    let short = raw.len() - 1;
    assert!(runs(&raw[..short], 1_000, 10_000).is_err());
    // Longer than the transactions.
    let mut longer = raw.clone();
    longer.push(0);
    assert!(matches!(
        runs(&longer, 1_000, 10_000),
        Err(DecodeError::Trailing(_))
    ));
    // More than was announced.
    let mut cut = Runs::new(10, 10, 10);
    assert!(cut.push(&[0; 11]).is_err());
    // Counts beyond what the block can hold never wait for more.
    let mut counts = raw.clone();
    counts[HEADER_LEN] = 0xfe;
    counts[HEADER_LEN + 1..HEADER_LEN + 5].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        runs(&counts, 1_000, 10_000),
        Err(DecodeError::Count { .. })
    ));
    // A transaction that is longer than what is held ends it early.
    let mut cut = Runs::new(raw.len() as u64, 10_000, 300);
    cut.push(&raw).unwrap();
    let error = loop {
        match cut.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was held"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, DecodeError::TransactionTooLong(_)),
        "{error}"
    );
    // Any byte changed: an error or another block, and no panic.
    for at in (0..raw.len()).step_by(97) {
        let mut broken = raw.clone();
        broken[at] ^= 0xff;
        let mut cut = Runs::new(raw.len() as u64, 5_000, 1 << 20);
        cut.push(&broken).unwrap();
        while let Ok(Some(_)) = cut.next() {}
    }
}
