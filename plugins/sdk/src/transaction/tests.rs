//! The views against the `bitcoin` crate, on real blocks.

use bitcoin::Block as Decoded;
use bitcoin::hashes::Hash;

use crate::testing::blocks::{self, data, read_framed, read_raw};
use crate::{Columns, WantedColumns, hex};

/// The columns of a block with a made-up coin for each input.
fn columns(block: &Decoded) -> Columns {
    let inputs = block.txdata.iter().map(|tx| tx.input.len()).sum::<usize>();
    let coins: Vec<_> = (0..inputs)
        .map(|i| {
            (
                1 << 40 | i as u64,
                vec![i as u8; i % 40],
                i as u32,
                i % 3 == 0,
            )
        })
        .collect();
    let spent = blocks::spent(&coins);
    Columns::new(
        blocks::columns(&block.txdata, WantedColumns::all(), Some(spent)),
        true,
    )
    .unwrap()
}

/// Compares every field of every transaction. Answers the numbers of transactions, inputs and outputs.
fn compare(block: &Decoded) -> (usize, usize, usize) {
    let columns = columns(block);
    assert_eq!(columns.len(), block.txdata.len());
    assert_eq!(columns.transactions().len(), block.txdata.len());
    let mut index = 0;
    for (position, (tx, real)) in columns.transactions().zip(&block.txdata).enumerate() {
        assert_eq!(tx.position(), position);
        assert_eq!(tx.is_coinbase(), position == 0);
        assert_eq!(tx.txid(), &real.compute_txid().to_byte_array());
        assert_eq!(tx.version(), real.version.0 as u32);
        assert_eq!(tx.lock_time(), real.lock_time.to_consensus_u32());
        assert_eq!(tx.size() as usize, real.total_size());
        assert_eq!(u64::from(tx.weight()), real.weight().to_wu());
        assert_eq!(tx.vsize() as usize, real.vsize());

        assert_eq!(
            (tx.input_count(), tx.inputs().len()),
            (real.input.len(), real.input.len())
        );
        let mut spent_sum = 0;
        for (n, (input, real)) in tx.inputs().zip(&real.input).enumerate() {
            assert_eq!(
                input.previous().txid,
                &real.previous_output.txid.to_byte_array()
            );
            assert_eq!(input.previous().vout, real.previous_output.vout);
            assert_eq!(input.previous().is_null(), position == 0);
            assert_eq!(
                input.previous().to_string(),
                real.previous_output.to_string()
            );
            assert_eq!(input.sequence(), real.sequence.0);
            assert_eq!(input.script(), real.script_sig.as_bytes());
            let items: Vec<&[u8]> = real.witness.iter().collect();
            assert_eq!(input.witness().collect::<Vec<_>>(), items);
            assert_eq!(tx.witness(n).len(), items.len());
            assert_eq!(input.index(), index);
            match input.spent() {
                None => assert_eq!(position, 0),
                Some(coin) => {
                    assert_eq!(coin.value, 1 << 40 | index as u64);
                    assert_eq!(coin.script, vec![index as u8; index % 40]);
                    assert_eq!((coin.height, coin.coinbase), (index as u32, index % 3 == 0));
                    spent_sum += coin.value;
                }
            }
            index += 1;
        }
        assert_eq!(tx.witness(real.input.len()).len(), 0);

        assert_eq!(
            (tx.output_count(), tx.outputs().len()),
            (real.output.len(), real.output.len())
        );
        for (n, (output, real)) in tx.outputs().zip(&real.output).enumerate() {
            assert_eq!(output.value(), real.value.to_sat());
            assert_eq!(output.script(), real.script_pubkey.as_bytes());
            assert_eq!(output.vout() as usize, n);
            assert_eq!(output.is_op_return(), real.script_pubkey.is_op_return());
        }
        let out: u64 = real.output.iter().map(|output| output.value.to_sat()).sum();
        assert_eq!(tx.output_value(), out);
        assert_eq!(tx.input_value(), (position > 0).then_some(spent_sum));
        assert_eq!(
            tx.fee(),
            if position == 0 {
                None
            } else {
                spent_sum.checked_sub(out)
            }
        );
    }
    (columns.len(), columns.input_count(), columns.output_count())
}

#[test]
fn views_show_real_blocks_as_they_are() {
    let Some(data) = data() else { return };
    let counts = |file: &str| compare(&read_raw(&data.join("blocks").join(file)));
    assert_eq!(counts("mainnet-413567.raw"), (1_557, 4_887, 3_581));
    assert_eq!(counts("mainnet-800000.raw"), (3_721, 4_912, 12_103));
    let (transactions, inputs, _) = counts("mainnet-367891.raw");
    assert_eq!((transactions, inputs), (420, 20_818));
    assert_eq!(counts("testnet3-924634.raw").0, 15);
    for block in read_framed(&data.join("regtest/main.dat"))
        .iter()
        .rev()
        .take(3)
    {
        compare(block);
    }
}

#[test]
fn txids_of_block_800000_are_those_listed() {
    let Some(data) = data() else { return };
    let listed = std::fs::read_to_string(data.join("blocks/mainnet-800000.txids.txt")).unwrap();
    let columns = columns(&read_raw(&data.join("blocks/mainnet-800000.raw")));
    let shown: Vec<String> = columns.txids().iter().map(hex::display).collect();
    assert_eq!(shown, listed.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn what_was_not_asked_for_is_none_or_stops_the_plugin() {
    let block = crate::testing::chain::block(crate::testing::chain::hash(1), 1, 50, vec![]);
    let of = blocks::columns(&block.txdata, WantedColumns::empty(), None);
    let columns = Columns::new(of, true).unwrap();
    let tx = columns.transactions().next().unwrap();
    assert_eq!(
        (
            tx.input_count(),
            tx.output_count(),
            tx.fee(),
            tx.input_value()
        ),
        (1, 1, None, None)
    );
    type Read = fn(&super::Transaction<'_>) -> usize;
    let reads: [Read; 3] = [
        |tx| tx.inputs().count(),
        |tx| tx.outputs().count(),
        |tx| tx.witness(0).count(),
    ];
    for read in reads {
        let columns = &columns;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            read(&columns.transactions().next().unwrap());
        }));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert!(
            message.contains("its descriptor does not ask for"),
            "{message}"
        );
    }
}
