//! A capsule: somebody's failed call, sent along to be run again.

use blockmill::plugin::Capsule;

use super::Verdict;
use crate::{memory, shapes};

/// The first byte says whether the checksum is put right, the rest is the file.
pub fn run(data: &[u8]) -> Verdict {
    let Some((flags, file)) = data.split_first() else {
        return Verdict::Refused;
    };
    let mut file = file.to_vec();
    if flags & 1 == 0 {
        shapes::put_crc_right(&mut file);
    }
    memory::bounded(memory::THE_CRATE + 200 * data.len(), || {
        let Ok(capsule) = Capsule::decode(&file) else {
            return Verdict::Refused;
        };
        assert!(Capsule::decode(&file[..file.len() - 1]).is_err());
        // What it does not know it passes over, so it is the second writing that is the same as the first.
        let written = capsule.encode(1 << 30).expect("of that size");
        let again = Capsule::decode(&written).expect("it was written by us");
        assert_eq!(format!("{:?}", again.given), format!("{:?}", capsule.given));
        assert_eq!(again.wasm, capsule.wasm);
        assert_eq!(again.encode(1 << 30).expect("of that size"), written);
        Verdict::Taken
    })
}
