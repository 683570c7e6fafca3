//! The payload of each message.

use blockmill::wire::codec::Command;
use blockmill::wire::{Message, RawMessage};
use bytes::Bytes;

use super::Verdict;
use crate::memory;

/// Every message that the host reads, and one that it does not.
pub const COMMANDS: [&str; 27] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "sendheaders",
    "ping",
    "pong",
    "feefilter",
    "protoconf",
    "getaddr",
    "addr",
    "addrv2",
    "inv",
    "getdata",
    "notfound",
    "getheaders",
    "getblocks",
    "headers",
    "block",
    "tx",
    "sendcmpct",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "mempool",
    "alert",
    "reject",
];

/// Of these the rest is not ours to refuse, or not read at all: cut short, they may still be whole.
const OPEN_ENDED: [&str; 13] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "sendheaders",
    "getaddr",
    "mempool",
    "protoconf",
    "block",
    "tx",
    "ping",
    "alert",
    "reject",
];

/// The command of this number.
pub fn command(number: u8) -> Command {
    let name = COMMANDS[usize::from(number) % COMMANDS.len()];
    let mut padded = [0; 12];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Command::from_padded(padded).expect("a name in ASCII")
}

fn read(command: Command, payload: &[u8]) -> Option<Message> {
    let payload = Bytes::copy_from_slice(payload);
    Message::read(RawMessage { command, payload }).ok()
}

/// The first byte says which message, the rest is its payload.
pub fn run(data: &[u8]) -> Verdict {
    let Some((number, payload)) = data.split_first() else {
        return Verdict::Refused;
    };
    let command = command(*number);
    memory::bounded(memory::THE_CRATE + 100 * payload.len(), || {
        let Some(message) = read(command, payload) else {
            return Verdict::Refused;
        };
        assert_eq!(message.command(), command.as_str());
        assert!(message.summary().starts_with(command.as_str()));
        if matches!(message, Message::Unknown(_)) {
            return Verdict::Refused;
        }
        let written = message.payload();
        assert_eq!(read(command, &written).as_ref(), Some(&message));
        if !OPEN_ENDED.contains(&command.as_str()) {
            for end in [written.len().saturating_sub(1), written.len() / 2, 0] {
                if end < written.len() {
                    assert_eq!(read(command, &written[..end]), None, "cut at {end}");
                }
            }
            let longer = [written.as_slice(), &[0]].concat();
            assert_eq!(read(command, &longer), None, "with a byte more");
        }
        Verdict::Taken
    })
}
