//! Two nodes and the encrypted transport (BIP324) between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use devnet::{Behaviour, Devnet, Dial};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_node_dials_another_in_both_versions_of_the_transport() {
    for (seed, dial) in [(1, Dial::V2), (2, Dial::V1)] {
        let (a, b) = (Devnet::new(seed).unwrap(), Devnet::new(seed).unwrap());
        a.dial(b.p2p_addr(), dial).unwrap();
        for node in [&a, &b] {
            node.wait_for_clients(1, LIMIT).unwrap();
        }
        assert_eq!(a.session_ids(), b.session_ids());
        assert_eq!(a.session_ids()[0].is_some(), dial == Dial::V2);
    }
}

#[test]
fn a_node_of_old_drops_who_begins_with_a_key() {
    let (a, b) = (Devnet::new(3).unwrap(), Devnet::new(3).unwrap());
    let old = Behaviour {
        no_v2: true,
        ..Behaviour::default()
    };
    b.set_behaviour(b.p2p_addr(), old).unwrap();
    a.dial(b.p2p_addr(), Dial::V2).unwrap();
    assert!(b.wait_for_clients(1, Duration::from_secs(1)).is_err());
    a.dial(b.p2p_addr(), Dial::V1).unwrap();
    b.wait_for_clients(1, LIMIT).unwrap();
}
