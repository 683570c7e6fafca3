//! How what the estimator knows lies in the state and in the volatile space.
//!
//! A bucket's row is `height u32 LE, count f64, rates f64`, then the numbers of `confirmed` and of `failed` as runs of equal
//! ones (`length u8, number f64`): they rise and fall in few steps. Only rows that a block changed are written.

use blockmill_sdk::prelude::*;
use blockmill_sdk::state::Keys;
use blockmill_sdk::{Pieces, Single, ValueBytes};

use crate::estimator::Estimator;
use crate::horizon::{Horizon, Row};

/// First byte of every row's key.
const ROW: u8 = b'R';

/// Height of the first block that told something, block time of the last one.
const META: Single<(u32, u64)> = Single::new(b"M");

/// Where the summary lies in the volatile space.
const SUMMARY: &[u8] = b"U";

fn horizons(estimator: &mut Estimator) -> [(u8, &mut Horizon); 3] {
    [
        (0, &mut estimator.short),
        (1, &mut estimator.medium),
        (2, &mut estimator.long),
    ]
}

/// Reads what was learnt. Answers the block time of the last block that told something, 0 for none.
pub fn load(estimator: &mut Estimator) -> Result<u64, String> {
    let Some((first_recorded, active)) = META.get()? else {
        return Ok(0);
    };
    estimator.first_recorded = first_recorded;
    let mut broken = false;
    for (number, horizon) in horizons(estimator) {
        let periods = horizon.shape().periods;
        state::scan_all(&[ROW, number], |key, value| {
            match (key.get(2), read_row(value, periods)) {
                (Some(bucket), Some(row)) => horizon.restore(usize::from(*bucket), row),
                _ => broken = true,
            }
            !broken
        });
    }
    if broken {
        Err("a row of the statistics in the state has another shape".into())
    } else {
        Ok(active)
    }
}

/// Writes the rows that changed.
pub fn save(estimator: &mut Estimator, active: u64) {
    META.put(&(estimator.first_recorded, active));
    let mut keys = Keys::fixed(3);
    let mut values = Pieces::new();
    for (number, horizon) in horizons(estimator) {
        for (bucket, row) in horizon.take_changed() {
            keys.push(&[ROW, number, bucket as u8]);
            values.push_with(|bytes| write_row(row, bytes));
        }
    }
    if !keys.is_empty() {
        state::put_many(&keys, &values);
    }
}

/// Removes all that was learnt.
pub fn forget() {
    let mut keys = Keys::fixed(3);
    state::scan_all(&[ROW], |key, _| {
        keys.push(key);
        true
    });
    state::delete_many(&keys);
    state::delete(b"M");
    state::delete(b"C");
}

fn write_row(row: &Row, bytes: &mut Vec<u8>) {
    ValueBytes::write(&row.height, bytes);
    ValueBytes::write(&row.count, bytes);
    ValueBytes::write(&row.rates, bytes);
    for numbers in [&row.confirmed, &row.failed] {
        for run in numbers.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
            bytes.push(run.len() as u8);
            ValueBytes::write(&run.first().copied().unwrap_or(0.0), bytes);
        }
    }
}

fn read_row(mut bytes: &[u8], periods: usize) -> Option<Row> {
    let from = &mut bytes;
    let height = <u32 as ValueBytes>::read(from)?;
    let count = f64::read(from)?;
    let rates = f64::read(from)?;
    let confirmed = read_runs(from, periods)?;
    let failed = read_runs(from, periods)?;
    bytes.is_empty().then_some(Row {
        height,
        count,
        rates,
        confirmed,
        failed,
    })
}

fn read_runs(from: &mut &[u8], periods: usize) -> Option<Vec<f64>> {
    let mut numbers = Vec::with_capacity(periods);
    while numbers.len() < periods {
        let length = <u8 as ValueBytes>::read(from)?;
        let number = f64::read(from)?;
        if length == 0 {
            return None;
        }
        numbers.resize(numbers.len() + usize::from(length), number);
    }
    (numbers.len() == periods).then_some(numbers)
}

/// What is only in memory, summed up for queries.
#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    /// Height of the last block.
    pub height: u32,
    /// Unix seconds of the last change.
    pub time: u64,
    /// True while the host follows the tip and its pool is not fresh.
    pub current: bool,
    /// Height, bucket, and how many transactions came then and there and are waited for.
    pub waiting: Vec<(u32, usize, u32)>,
    /// Bucket and blocks waited of what left the pool unconfirmed since the last block.
    pub failures: Vec<(usize, u32)>,
}

impl Summary {
    /// Leaves it in the volatile space.
    pub fn put(&self) {
        let mut bytes = Vec::with_capacity(32 + self.waiting.len() * 9 + self.failures.len() * 5);
        (self.height, self.time, self.current).write(&mut bytes);
        ValueBytes::write(&(self.waiting.len() as u32), &mut bytes);
        for (height, bucket, count) in &self.waiting {
            ValueBytes::write(&(*height, *bucket as u8, *count), &mut bytes);
        }
        for (bucket, blocks) in &self.failures {
            ValueBytes::write(&(*bucket as u8, *blocks), &mut bytes);
        }
        volatile::put(SUMMARY, &bytes);
    }

    /// Reads it from the volatile space; none where the pool was not heard of yet.
    pub fn get() -> Option<Self> {
        let bytes = volatile::get(SUMMARY)?;
        let mut from = bytes.as_slice();
        let (height, time, current) = ValueBytes::read(&mut from)?;
        let mut summary = Summary {
            height,
            time,
            current,
            ..Summary::default()
        };
        for _ in 0..<u32 as ValueBytes>::read(&mut from)? {
            let (height, bucket, count): (u32, u8, u32) = ValueBytes::read(&mut from)?;
            summary.waiting.push((height, usize::from(bucket), count));
        }
        while !from.is_empty() {
            let (bucket, blocks): (u8, u32) = ValueBytes::read(&mut from)?;
            summary.failures.push((usize::from(bucket), blocks));
        }
        Some(summary)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let row = Row {
            height: 7,
            count: 3.5,
            rates: 1e5,
            confirmed: vec![0.0, 0.0, 1.5, 3.5],
            failed: vec![0.25, 0.0, 0.0, 0.0],
        };
        let mut bytes = Vec::new();
        write_row(&row, &mut bytes);
        assert_eq!(read_row(&bytes, 4), Some(row));
        assert_eq!(read_row(&bytes, 5), None);
        assert_eq!(read_row(bytes.get(..bytes.len() - 1).unwrap(), 4), None);
    }
}
