//! What is measured of single peers: of those that are connected, for as long as they are.

use std::fmt::Error;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// One connected peer.
#[derive(Clone, Debug)]
pub struct PeerSample {
    /// Its address.
    pub addr: String,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// What the connection is for.
    pub kind: &'static str,
    /// `v1` or `v2`.
    pub transport: &'static str,
    /// What its last ping took, seconds.
    pub latency: Option<f64>,
    /// Bytes received from it.
    pub bytes_in: u64,
    /// Bytes sent to it.
    pub bytes_out: u64,
    /// Blocks that it sent.
    pub blocks: u64,
    /// Blocks that it was asked for and has not sent.
    pub in_flight: u64,
    /// Small offences.
    pub misbehaviour: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    peer: String,
    direction: &'static str,
    kind: &'static str,
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: &'static str,
}

#[derive(Debug, Default)]
struct Samples {
    peers: Vec<PeerSample>,
    bans: u64,
    book: [u64; 2],
}

/// The peers as they were last looked at. Gone peers leave no series behind.
#[derive(Clone, Debug, Default)]
pub struct PeerMetrics(Arc<Mutex<Samples>>);

/// How a number of a sample is called, what it is, and where it is.
type Column = (&'static str, &'static str, fn(&PeerSample) -> Option<f64>);

const COLUMNS: [Column; 6] = [
    (
        "peer_connection_latency_seconds",
        "Time that the peer's last ping took",
        |peer| peer.latency,
    ),
    (
        "peer_connection_bytes_in",
        "Bytes received on the connection",
        |peer| Some(peer.bytes_in as f64),
    ),
    (
        "peer_connection_bytes_out",
        "Bytes sent on the connection",
        |peer| Some(peer.bytes_out as f64),
    ),
    (
        "peer_connection_blocks",
        "Blocks that the peer sent",
        |peer| Some(peer.blocks as f64),
    ),
    (
        "peer_connection_blocks_in_flight",
        "Blocks that the peer was asked for and has not sent",
        |peer| Some(peer.in_flight as f64),
    ),
    (
        "peer_connection_misbehaviour",
        "Small offences of the peer; at 100 it is dropped and banned",
        |peer| Some(f64::from(peer.misbehaviour)),
    ),
];

impl PeerMetrics {
    /// Shows these from now on: the peers, the number of bans, and of addresses heard of and connected to.
    pub fn show(&self, peers: Vec<PeerSample>, bans: u64, book: [u64; 2]) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *samples = Samples { peers, bans, book };
    }
}

impl Collector for PeerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, help, value) in COLUMNS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for peer in &samples.peers {
                let Some(value) = value(peer) else { continue };
                let labels = Labels {
                    peer: peer.addr.clone(),
                    direction: peer.direction,
                    kind: peer.kind,
                    transport: peer.transport,
                };
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let bans = encoder.encode_descriptor(
            "peer_bans",
            "Bans of addresses and ranges that hold",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(samples.bans as f64).encode(bans)?;
        let mut book = encoder.encode_descriptor(
            "peer_book_addresses",
            "Addresses of peers that are known: only heard of, or connected to before",
            None,
            MetricType::Gauge,
        )?;
        for (table, count) in ["new", "tried"].into_iter().zip(samples.book) {
            let labels = TableLabels { table };
            ConstGauge::new(count as f64).encode(book.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_peer_is_shown_while_it_is_connected() {
        let metrics = Metrics::new("0.1.0", "regtest");
        let peer = PeerSample {
            addr: "[::1]:8333".to_owned(),
            direction: "inbound",
            kind: "incoming",
            transport: "v2",
            latency: Some(0.25),
            bytes_in: 10,
            bytes_out: 20,
            blocks: 3,
            in_flight: 4,
            misbehaviour: 5,
        };
        metrics.each_peer.show(vec![peer], 2, [7, 8]);
        let text = metrics.text();
        let labels =
            "{peer=\"[::1]:8333\",direction=\"inbound\",kind=\"incoming\",transport=\"v2\"}";
        for line in [
            format!("blockmill_peer_connection_latency_seconds{labels} 0.25"),
            format!("blockmill_peer_connection_bytes_in{labels} 10.0"),
            format!("blockmill_peer_connection_blocks_in_flight{labels} 4.0"),
            format!("blockmill_peer_connection_misbehaviour{labels} 5.0"),
            "blockmill_peer_bans 2.0".to_owned(),
            "blockmill_peer_book_addresses{table=\"tried\"} 8.0".to_owned(),
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        metrics.each_peer.show(Vec::new(), 0, [7, 8]);
        assert!(!metrics.text().contains("[::1]"));
    }
}
