//! The one-byte names of messages in version 2 (BIP324, "v2 Bitcoin P2P message structure").

/// In order, from 1.
const NAMES: [&str; 28] = [
    "addr",
    "block",
    "blocktxn",
    "cmpctblock",
    "feefilter",
    "filteradd",
    "filterclear",
    "filterload",
    "getblocks",
    "getblocktxn",
    "getdata",
    "getheaders",
    "headers",
    "inv",
    "mempool",
    "merkleblock",
    "notfound",
    "ping",
    "pong",
    "sendcmpct",
    "tx",
    "getcfilters",
    "cfilters",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
    "addrv2",
];

/// The message that `id` names; nothing for those that are not assigned.
pub(super) fn name(id: u8) -> Option<&'static str> {
    NAMES.get(usize::from(id).checked_sub(1)?).copied()
}

/// The id of a message, if it has one.
pub(super) fn id(name: &str) -> Option<u8> {
    let index = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(index + 1).ok()
}
