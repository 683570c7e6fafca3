//! Headers: the rules that decide whether one may follow, the tree, and the file that keeps them.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use blockmill::chain::HeaderTree;
use blockmill::headers_file::HeadersFile;
use blockmill::network::Network;

use super::Verdict;
use crate::{Input, memory, shapes};

/// The networks whose rules differ: regtest, each branch of Bitcoin's, and one of Bitcoin SV's.
const NETWORKS: [Network; 5] = [
    Network::Regtest,
    Network::Mainnet,
    Network::Testnet3,
    Network::Testnet4,
    Network::Signet,
];

/// A byte says which network, another whether it is the file that is read; then headers. Each of 80 bytes is taken as it is; a
/// shorter form (see [`next`]) stands on one that was accepted.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let network = NETWORKS[usize::from(input.byte()) % NETWORKS.len()];
    if input.byte() & 1 == 1 {
        return memory::bounded_by(data, 64, || file(input.rest()));
    }
    memory::bounded((1 << 20) + 400 * data.len(), || tree(network, input))
}

fn tree(network: Network, mut input: Input<'_>) -> Verdict {
    let params = network.params();
    let mut tree = HeaderTree::new(params);
    let mut accepted: Vec<Header> = vec![params.genesis_header];
    while !input.is_empty() {
        let header = next(&mut input, &accepted);
        let hash = header.block_hash();
        let (before, known) = (tree.best_work(), tree.contains(&hash));
        let inserted = tree.insert(header, shapes::NOW);
        assert_eq!(tree.contains(&hash), known || inserted.is_ok());
        assert!(tree.best_work() >= before, "work is never lost");
        if inserted.is_err() || known {
            continue;
        }
        let parent = header.prev_blockhash;
        assert_eq!(tree.header(&hash), Some(header));
        assert_eq!(
            tree.height_of(&hash),
            tree.height_of(&parent).map(|height| height + 1)
        );
        assert_eq!(
            tree.chain_work(&hash),
            tree.chain_work(&parent).map(|work| work + header.work())
        );
        assert!(header.target().is_met_by(hash));
        assert!(header.target() <= params.pow_limit);
        assert!(tree.median_time(&hash) >= tree.median_time(&parent));
        accepted.push(header);
    }
    locator(&tree);
    // What was accepted once is accepted again, and the tree is the same.
    let again =
        HeaderTree::load(params, accepted.iter().skip(1).copied()).expect("they were accepted");
    assert_eq!(again.len(), tree.len());
    assert_eq!(again.best_work(), tree.best_work());
    Verdict::taken(accepted.len() > 1)
}

/// From the input: 0 and 80 bytes are a header; anything else stands on an accepted one, with a time, perhaps other bits and
/// version, and its proof of work.
fn next(input: &mut Input<'_>, accepted: &[Header]) -> Header {
    let form = input.byte();
    if form == 0 {
        let mut bytes = [0; 80];
        let given = input.take(80);
        bytes[..given.len()].copy_from_slice(given);
        return deserialize(&bytes).expect("any 80 bytes are a header");
    }
    let back = usize::from(input.byte());
    let parent = accepted[(accepted.len() - 1).saturating_sub(back)];
    let seconds = u32::from(input.u16());
    let root = bitcoin::hashes::Hash::from_byte_array([input.byte(); 32]);
    let mut header = shapes::header(&parent, root, seconds);
    header.bits = parent.bits;
    if form & 2 != 0 {
        header.bits = bitcoin::CompactTarget::from_consensus(input.u32());
    }
    if form & 4 != 0 {
        header.version = bitcoin::block::Version::from_consensus(input.u32() as i32);
    }
    if form & 8 == 0 {
        shapes::mine(&mut header);
    }
    header
}

/// A locator begins at the best header and ends at the genesis, going back faster and faster.
fn locator(tree: &HeaderTree) {
    let locator = tree.locator(None);
    let heights: Vec<u32> = locator
        .iter()
        .filter_map(|hash: &BlockHash| tree.height_of(hash))
        .collect();
    assert_eq!(heights.len(), locator.len());
    assert!(heights.windows(2).all(|pair| pair[0] > pair[1]));
    assert_eq!(heights.first(), Some(&tree.best_header().0));
    assert_eq!(heights.last(), Some(&0));
    assert!(locator.len() <= 101);
}

/// A file of any bytes: whole headers are kept, and one more can be appended.
fn file(bytes: &[u8]) -> Verdict {
    let path = shapes::scratch().join("headers.dat");
    std::fs::write(&path, bytes).expect("a file");
    let (mut file, headers) = HeadersFile::open(&path).expect("any bytes are taken");
    assert_eq!(headers.len(), bytes.len() / 80);
    let kept: Vec<u8> = headers.iter().flat_map(serialize).collect();
    assert!(bytes.starts_with(&kept));
    let next = shapes::regtest().genesis_header;
    file.append(&[next]).expect("room for one");
    drop(file);
    let (_, again) = HeadersFile::open(&path).expect("it was written by us");
    assert_eq!(again.len(), headers.len() + 1);
    assert_eq!(again.last(), Some(&next));
    Verdict::taken(!headers.is_empty())
}
