//! Coins as they lie in the state of the plugin that has them, which a snapshot brings from elsewhere.

use blockmill::store::{Coin, CoinHash, OutPointKey, coin_key, encode_coin};

use super::Verdict;
use crate::{Input, memory};

/// Keys and values, each with its length before it, in any order.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    memory::bounded_by(data, 16, || {
        let mut hash = CoinHash::default();
        let mut coins = 0;
        while !input.is_empty() {
            let (key, value) = (input.chunk(), input.chunk());
            let hashed = hash.push(key, value).is_ok();
            let coin = Coin::decode(value);
            if let Some(coin) = &coin {
                let mut written = Vec::new();
                encode_coin(
                    coin.height,
                    coin.coinbase,
                    coin.value,
                    &coin.script,
                    &mut written,
                );
                assert_eq!(written, value, "written as it was read");
            }
            let is_key = is_coin_key(key);
            assert!(!hashed || (is_key && coin.is_some()));
            let fits = coin.is_some_and(|coin| coin.script.len() <= usize::from(u16::MAX));
            assert_eq!(hashed, is_key && fits);
            coins += usize::from(hashed);
        }
        assert_eq!(hash.finish().len(), 64);
        Verdict::taken(coins > 0)
    })
}

fn is_coin_key(key: &[u8]) -> bool {
    let Some((txid, vout)) = key.get(1..).and_then(|rest| rest.split_first_chunk::<32>()) else {
        return false;
    };
    let Ok(vout) = <[u8; 4]>::try_from(vout) else {
        return false;
    };
    let outpoint = OutPointKey {
        txid: *txid,
        vout: u32::from_be_bytes(vout),
    };
    coin_key(&outpoint) == key
}
