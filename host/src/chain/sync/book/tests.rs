//! What the book takes in, chooses, gives up and keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::chain::sync::bans::{Bans, Ladder};

const NOW: u64 = 1_700_000_000;
const DAY: u64 = 24 * 60 * 60;
const GOOD: ServiceFlags = ServiceFlags::NETWORK;

fn address(ip: u32) -> NetAddress {
    NetAddress::ip((std::net::Ipv4Addr::from(ip), 8333).into())
}

fn source(n: u8) -> Group {
    group_of_ip([n, n, 0, 0].into())
}

fn book() -> Book {
    Book::new([1, 2])
}

fn add(book: &mut Book, ip: u32, from: u8) -> bool {
    book.add(address(ip), GOOD, NOW - 60, source(from), 0, NOW)
}

#[test]
fn an_address_is_new_until_a_handshake_and_tried_from_then_on() {
    let mut book = book();
    assert!(add(&mut book, 0x0808_0808, 1));
    assert!(!add(&mut book, 0x0808_0808, 2), "known already");
    assert_eq!(book.counts(), BookCounts { new: 1, tried: 0 });
    let handle = address(0x0808_0808).handle();
    book.tried(&handle, NOW);
    assert_eq!(book.get(&handle).unwrap().failures, 1);
    book.good(&handle, ServiceFlags::NETWORK | ServiceFlags::WITNESS, NOW);
    let record = book.get(&handle).unwrap();
    assert_eq!((record.failures, record.good), (0, NOW));
    assert!(record.services.has(ServiceFlags::WITNESS));
    assert_eq!(book.counts(), BookCounts { new: 0, tried: 1 });
    book.ended(&handle, &"é".repeat(200), NOW + 5);
    let (at, why) = book.get(&handle).unwrap().dropped.clone().unwrap();
    assert_eq!((at, why.as_str()), (NOW + 5, "é".repeat(80).as_str()));
    assert_eq!(book.transport(&handle), None);
    book.took(&handle, TransportKind::V2);
    assert_eq!(book.transport(&handle), Some(TransportKind::V2));
}

#[test]
fn one_source_fills_a_sixteenth_of_the_new_and_leaves_room_for_others() {
    let mut book = book();
    let mut taken = 0;
    for n in 0..200_000_u32 {
        taken += usize::from(add(&mut book, 0x0800_0000 + n * 83, 1));
    }
    let limit = (NEW_BUCKETS_PER_SOURCE * BUCKET) as usize;
    assert!(taken <= limit && taken > limit / 2, "{taken} of {limit}");
    let buckets: BTreeSet<u32> = book.new.keys().map(|place| place / 64).collect();
    assert!(buckets.len() <= 64, "{}", buckets.len());
    // Another source is heard as if nothing had happened.
    let others = (0..1_000_u32).filter(|n| add(&mut book, 0x5000_0000 + n * 65_537, 9));
    let taken = others.count();
    assert!(taken > 750, "{taken} of 1000");
}

#[test]
fn a_group_reaches_eight_buckets_of_the_tried() {
    let mut book = book();
    for n in 0..5_000 {
        let ip = 0x0808_0000 + n;
        add(&mut book, ip, (n % 200) as u8);
        book.good(&address(ip).handle(), GOOD, NOW);
    }
    let buckets: BTreeSet<u32> = book.tried.keys().map(|place| place / 64).collect();
    assert!(buckets.len() <= 8, "{}", buckets.len());
}

#[test]
fn who_holds_a_place_among_the_tried_is_tested_before_it_goes() {
    let mut book = book();
    let mut places = BTreeMap::new();
    // Two addresses that want the same place.
    let (first, second) = (0..)
        .find_map(|n| {
            let address = address(0x0808_0000 + n);
            let other = places.insert(book.tried_place(&address), address);
            other.map(|other| (other, address))
        })
        .unwrap();
    for address in [first, second] {
        book.add(address, GOOD, NOW, source(1), 0, NOW);
        book.good(&address.handle(), GOOD, NOW);
    }
    assert_eq!(book.counts(), BookCounts { new: 1, tried: 1 });
    let mut chance = Chance::new(1, b"test");
    // Good lately: it stays, and nothing is to be tested.
    assert_eq!(book.next_test(&mut chance, NOW + 60), None);
    // The contest came up again a day later: now the holder has to answer.
    let later = NOW + DAY;
    book.good(&second.handle(), GOOD, later);
    assert_eq!(book.next_test(&mut chance, later), Some(first));
    book.tried(&first.handle(), later);
    book.settle_contests(later + 30);
    assert!(matches!(
        book.get(&first.handle()).unwrap().place,
        Place::Tried(_)
    ));
    book.settle_contests(later + 61);
    assert!(matches!(
        book.get(&second.handle()).unwrap().place,
        Place::Tried(_)
    ));
    assert!(matches!(
        book.get(&first.handle()).unwrap().place,
        Place::New(_)
    ));

    // And one that does answer keeps its place.
    let latest = later + DAY;
    book.good(&first.handle(), GOOD, latest);
    assert_eq!(book.next_test(&mut chance, latest), Some(second));
    book.tried(&second.handle(), latest);
    book.good(&second.handle(), GOOD, latest);
    book.settle_contests(latest + 61);
    assert!(matches!(
        book.get(&second.handle()).unwrap().place,
        Place::Tried(_)
    ));
}

#[test]
fn what_is_worthless_makes_room_and_what_is_good_does_not() {
    let mut book = book();
    assert!(add(&mut book, 0x0808_0808, 1));
    let handle = address(0x0808_0808).handle();
    let place = *book.new.keys().next().unwrap();
    // Others of the same source that want its place.
    let rivals: Vec<u32> = (0..)
        .map(|n| 0x0900_0000 + n)
        .filter(|ip| book.new_place(&address(*ip), source(1)) == place)
        .take(2)
        .collect();
    assert!(!add(&mut book, rivals[0], 1));
    // Three tries without an answer, while others answer.
    for n in 0..3 {
        book.any_good = NOW + n * 1_000;
        book.tried(&handle, NOW + n * 1_000);
    }
    let now = NOW + 4_000;
    assert!(book.add(address(rivals[0]), GOOD, now, source(1), 0, now));
    assert!(book.get(&handle).is_none());
    // Not seen for a month.
    let now = now + 31 * DAY;
    assert!(book.add(address(rivals[1]), GOOD, now, source(1), 0, now));
    assert_eq!(book.len(), 1);
}

#[test]
fn failures_do_not_count_while_nobody_answers() {
    let mut book = book();
    add(&mut book, 0x0808_0808, 1);
    let handle = address(0x0808_0808).handle();
    for n in 0..50 {
        book.tried(&handle, NOW + n * 600);
    }
    assert_eq!(book.get(&handle).unwrap().failures, 1);
}

#[test]
fn both_tables_are_chosen_from_and_who_fails_is_chosen_less() {
    let (mut book, mut chance) = (book(), Chance::new(3, b"test"));
    for n in 0..200_u32 {
        let ip = 0x0808_0808 + n * 65_536;
        add(&mut book, ip, (n % 50) as u8);
        if n % 4 == 0 {
            book.good(&address(ip).handle(), GOOD, NOW);
        }
    }
    let later = NOW + DAY;
    let bad = address(0x0808_0808).handle();
    for n in 0..8 {
        book.any_good = NOW + n * 600 + 1;
        book.tried(&bad, NOW + n * 600 + 1);
    }
    let (mut tried, mut chosen) = (0, BTreeMap::<SocketAddr, u32>::new());
    for _ in 0..4_000 {
        let record = book.select(false, &mut chance, later).unwrap();
        tried += u32::from(matches!(record.place, Place::Tried(_)));
        *chosen.entry(record.address.handle()).or_default() += 1;
        let new = book.select(true, &mut chance, later).unwrap();
        assert!(matches!(new.place, Place::New(_)));
    }
    assert!((1_600..2_400).contains(&tried), "{tried}");
    // All but perhaps a few come up, and the one that failed eight times a good deal less than its equals.
    assert!(chosen.len() > 180, "{}", chosen.len());
    let failed = chosen.get(&bad).copied().unwrap_or(0);
    assert!(failed < 20, "{failed}: its equals come up 40 times");
}

#[test]
fn an_answer_is_a_part_of_the_book_and_never_all_of_it() {
    let (mut book, mut chance) = (book(), Chance::new(4, b"test"));
    assert!(book.answer(&mut chance, NOW).is_empty());
    for n in 0..20_000_u32 {
        add(&mut book, 0x0808_0808 + n * 65_537, (n % 250) as u8);
    }
    assert_eq!(book.answer(&mut chance, NOW).len(), 1_000);
    let pinned = NetAddress::ip(([127, 0, 0, 1], 1).into());
    let mut small = self::book();
    small.pin(pinned, NOW);
    for n in 0..100_u32 {
        add(&mut small, 0x0808_0808 + n * 65_537, (n % 250) as u8);
    }
    let answer = small.answer(&mut chance, NOW);
    assert_eq!(answer.len(), 23);
    let known: BTreeSet<_> = answer.iter().map(|record| record.address).collect();
    assert!(known.len() == 23 && !known.contains(&pinned));
    assert!(
        small.answer(&mut chance, NOW + 40 * DAY).is_empty(),
        "too old"
    );
}

fn filled() -> (Book, Bans) {
    let mut book = book();
    for n in 0..50_u32 {
        add(&mut book, 0x0808_0808 + n * 65_537, (n % 7) as u8);
    }
    let handle = address(0x0808_0808).handle();
    book.good(&handle, GOOD, NOW);
    book.took(&handle, TransportKind::V2);
    book.ended(&handle, "no pong in time", NOW + 1);
    book.pin(NetAddress::ip(([127, 0, 0, 1], 1).into()), NOW);
    let onion = NetAddress::Tor([9; 32], 8333);
    book.add(onion, GOOD, NOW, source(3), 0, NOW);
    let mut bans = Bans::default();
    let ladder = Ladder {
        first: std::time::Duration::from_secs(60),
        second: std::time::Duration::from_secs(60),
    };
    bans.offence([9, 9, 9, 9].into(), "bad block", &ladder, NOW);
    bans.ban("10.0.0.0/8".parse().unwrap(), None, "\"quoted\"", NOW);
    (book, bans)
}

#[test]
fn what_is_written_is_read_back_whole() {
    let (book, bans) = filled();
    let anchors = [address(0x0808_0808), address(0x0909_0909)];
    let bytes = BookFile::encode("regtest", &book, &bans, &anchors);
    let file = BookFile::decode("regtest", &bytes).unwrap();
    let normal = |book: &Book| -> Vec<Record> { book.records().cloned().collect() };
    assert_eq!(
        normal(&file.book)
            .iter()
            .map(|record| Record {
                counted: 0,
                ..record.clone()
            })
            .collect::<Vec<_>>(),
        normal(&book)
    );
    assert_eq!(file.book.counts(), book.counts());
    assert_eq!(file.anchors, anchors);
    let all = |bans: &Bans| -> Vec<_> { bans.all().map(|(a, b)| (*a, b.clone())).collect() };
    assert_eq!(all(&file.bans), all(&bans));
    assert_eq!(
        BookFile::encode("regtest", &file.book, &file.bans, &file.anchors),
        bytes
    );
}

#[test]
fn a_torn_foreign_or_changed_file_is_refused() {
    let (book, bans) = filled();
    let bytes = BookFile::encode("regtest", &book, &bans, &[]);
    let why = |bytes: &[u8]| BookFile::decode("regtest", bytes).unwrap_err();
    for end in 0..bytes.len() {
        why(&bytes[..end]);
    }
    assert!(matches!(
        BookFile::decode("mainnet", &bytes).unwrap_err(),
        BookFileError::OtherNetwork(network) if network == "regtest"
    ));
    for foreign in [
        &b""[..],
        b"\n",
        b"\n\n",
        b"{}\n{}\n",
        b"#!/bin/sh\necho\n",
        &[0; 4096],
    ] {
        assert!(matches!(why(foreign), BookFileError::NoBook));
    }
    let text = String::from_utf8(bytes.clone()).unwrap();
    let newer = text.replace("\"version\":1", "\"version\":2");
    assert!(matches!(why(newer.as_bytes()), BookFileError::Version(2)));
    let lost: String = text
        .lines()
        .enumerate()
        .filter(|(n, _)| *n != 5)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    assert!(matches!(why(lost.as_bytes()), BookFileError::Checksum));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_file_holds_reading_it_ends(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..8000, seal: bool) {
        let (book, bans) = filled();
        let mut file = BookFile::encode("regtest", &book, &bans, &[]);
        let at = at % file.len();
        let end = (at + bytes.len()).min(file.len());
        file.splice(at..end, bytes.drain(..));
        if seal {
            // With a checksum that fits, as from somebody who means it.
            if let Some(last) = file[..file.len() - 1].iter().rposition(|byte| *byte == b'\n') {
                file.truncate(last + 1);
                let crc32 = crc32fast::hash(&file);
                file.extend(format!("{{\"crc32\":{crc32}}}\n").bytes());
            }
        }
        let _ = BookFile::decode("regtest", &file);
    }

    #[test]
    fn the_tables_and_the_records_always_agree(seed in any::<u64>()) {
        let (mut book, mut chance) = (book(), Chance::new(seed, b"test"));
        for n in 0..3_000_u64 {
            // Few groups and sources, so that places are contested.
            let ip = 0x0808_0000 + chance.below(700) as u32;
            let (now, handle) = (NOW + n * 40, address(ip).handle());
            match chance.below(8) {
                0..=3 => { book.add(address(ip), GOOD, now, source(chance.below(2) as u8), 0, now); }
                4 => book.tried(&handle, now),
                5 => book.good(&handle, GOOD, now),
                6 => { book.next_test(&mut chance, now); }
                _ if chance.below(20) == 0 => book.forget(&handle),
                _ => book.pin(address(ip), now),
            }
        }
        for (place, handle) in &book.new {
            prop_assert_eq!(book.records[handle].place, Place::New(*place));
        }
        for (place, handle) in &book.tried {
            prop_assert_eq!(book.records[handle].place, Place::Tried(*place));
        }
        let pinned = book.records().filter(|record| record.place == Place::Pinned).count();
        prop_assert_eq!(book.records.len(), book.new.len() + book.tried.len() + pinned);
        prop_assert!(pinned <= MAX_PINNED && book.contests.len() <= MAX_CONTESTS);
    }
}
