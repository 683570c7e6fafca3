//! The peer book's file, and addresses as people and peers write them.

use blockmill::chain::sync::bans::Subnet;
use blockmill::chain::sync::book::{BookFile, NetAddress};

use super::Verdict;
use crate::{Input, memory};

/// The first byte says whether it is an address or a file, whose checksum is put right.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.byte();
    let rest = input.rest();
    // Two tables of places, whatever the file says.
    memory::bounded((4 << 20) + 200 * data.len(), || match flags & 1 {
        0 => file(rest),
        _ => address(rest),
    })
}

fn file(bytes: &[u8]) -> Verdict {
    let mut bytes = bytes.to_vec();
    put_checksum_right(&mut bytes);
    let Ok(book) = BookFile::decode("regtest", &bytes) else {
        return Verdict::Refused;
    };
    assert!(BookFile::decode("mainnet", &bytes).is_err());
    assert!(BookFile::decode("regtest", &bytes[..bytes.len() - 1]).is_err());
    let write =
        |book: &BookFile| BookFile::encode("regtest", &book.book, &book.bans, &book.anchors);
    let written = write(&book);
    let again = BookFile::decode("regtest", &written).expect("it was written by us");
    assert_eq!(again.book.len(), book.book.len());
    assert_eq!(again.bans.all().count(), book.bans.all().count());
    assert_eq!(again.anchors, book.anchors);
    assert_eq!(sorted(&write(&again)), sorted(&written));
    Verdict::Taken
}

/// The lines but the last, which has the checksum of the others in their order.
fn sorted(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.truncate(lines.len().saturating_sub(2));
    lines.sort();
    lines
}

/// Puts a last line behind the others, in the place of the one that is there.
fn put_checksum_right(bytes: &mut Vec<u8>) {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let Some(at) = whole.iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    bytes.truncate(at + 1);
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(format!("{{\"crc32\":{crc}}}\n").as_bytes());
}

fn address(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Verdict::Refused;
    };
    let subnet = text.parse::<Subnet>();
    if let Ok(subnet) = &subnet {
        assert_eq!(subnet.to_string().parse::<Subnet>().as_ref(), Ok(subnet));
    }
    let address = text.parse::<NetAddress>();
    if let Ok(address) = &address {
        assert_eq!(
            address.to_string().parse::<NetAddress>().as_ref(),
            Ok(address)
        );
        let message = address.to_v2(7, bitcoin::p2p::ServiceFlags::NONE);
        assert_eq!(NetAddress::from_v2(&message).as_ref(), Some(address));
        let handle = address.handle();
        assert_eq!(handle.port(), address.port());
    }
    Verdict::taken(subnet.is_ok() || address.is_ok())
}
