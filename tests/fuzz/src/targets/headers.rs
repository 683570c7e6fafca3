//! Headers: the rules that decide whether one may follow, the tree, and the file that keeps them.

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{BlockHash, CompactTarget};
use blockmill::chain::{HeaderError, HeaderTree, Inserted};
use blockmill::headers_file::HeadersFile;
use blockmill::network::{Network, Params};

use super::Verdict;
use crate::{Input, memory, shapes};

/// Headers that one input may make.
const MOST_HEADERS: usize = 2_600;
/// So many are taken twice.
const FEW_HEADERS: usize = 300;

/// The parameters of a chain: those whose proof of work can be made, then the public ones.
fn params(number: u8) -> &'static Params {
    match number % 8 {
        chain @ 0..4 => shapes::CHAINS[usize::from(chain)],
        4 => Network::Mainnet.params(),
        5 => Network::Testnet3.params(),
        6 => Network::Testnet4.params(),
        _ => Network::Signet.params(),
    }
}

/// A byte says which chain, another whether it is the file that is read; then headers. Each of 80 bytes is taken as it is; a
/// shorter form (see [`next`]) stands on one that was accepted.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let params = params(input.byte());
    if input.byte() & 1 == 1 {
        return memory::bounded_by(data, 64, || file(input.rest()));
    }
    // Two trees, whose tables and lists double when they are full, and the headers themselves.
    memory::bounded((1 << 20) + 1_500 * MOST_HEADERS, || tree(params, input))
}

fn tree(params: &'static Params, mut input: Input<'_>) -> Verdict {
    let mut tree = HeaderTree::new(params);
    let mut accepted: Vec<Header> = vec![params.genesis_header];
    let mut made = 0;
    while !input.is_empty() && made < MOST_HEADERS {
        let (mut header, repeat) = next(&mut input, &accepted);
        let seconds = header.time.wrapping_sub(accepted[accepted.len() - 1].time);
        for number in 0..(repeat + 1).min(MOST_HEADERS - made) {
            made += 1;
            let inserted = match number {
                0 => insert(&mut tree, &mut header),
                _ => give(&mut tree, &mut header).is_ok(),
            };
            if !inserted {
                break;
            }
            accepted.push(header);
            if repeat > 0 {
                let bits = header.bits;
                header = shapes::header(&header, header.merkle_root, seconds);
                header.bits = bits;
                shapes::mine(&mut header);
            }
        }
    }
    locator(&tree);
    if accepted.len() < FEW_HEADERS {
        // What was accepted once is accepted again, and the tree is the same.
        let stored = accepted.iter().skip(1).copied();
        let again = HeaderTree::load(params, stored).expect("they were accepted");
        assert_eq!(again.len(), tree.len());
        assert_eq!(again.best_work(), tree.best_work());
    }
    Verdict::taken(accepted.len() > 1)
}

/// Gives the tree a header. One that has other bits than the rules ask for gets the right ones.
fn give(tree: &mut HeaderTree, header: &mut Header) -> Result<Inserted, HeaderError> {
    let inserted = tree.insert(*header, shapes::NOW);
    let Err(HeaderError::BadBits { expected, got }) = inserted else {
        return inserted;
    };
    assert_ne!(expected, got);
    header.bits = CompactTarget::from_consensus(expected);
    shapes::mine(header);
    let inserted = tree.insert(*header, shapes::NOW);
    assert!(!matches!(inserted, Err(HeaderError::BadBits { .. })));
    inserted
}

/// Whether the tree takes a header that it has not, and has then what it should.
fn insert(tree: &mut HeaderTree, header: &mut Header) -> bool {
    let before = tree.best_work();
    let inserted = give(tree, header);
    let (hash, parent) = (header.block_hash(), header.prev_blockhash);
    assert_eq!(tree.contains(&hash), inserted.is_ok());
    assert!(tree.best_work() >= before, "work is never lost");
    if !matches!(inserted, Ok(Inserted::New)) {
        return false;
    }
    assert_eq!(tree.header(&hash), Some(*header));
    let height = |hash| tree.height_of(hash);
    assert_eq!(height(&hash), height(&parent).map(|height| height + 1));
    let work = tree.chain_work(&parent).map(|work| work + header.work());
    assert_eq!(tree.chain_work(&hash), work);
    assert!(header.target().is_met_by(hash));
    assert!(header.target() <= tree.params().pow_limit);
    assert!(tree.median_time(&hash) >= tree.median_time(&parent));
    true
}

/// From the input: 0 and 80 bytes are a header; anything else stands on an accepted one, with a time, perhaps other bits and
/// version, and its proof of work; and how many more there are, in the same distance.
fn next(input: &mut Input<'_>, accepted: &[Header]) -> (Header, usize) {
    let form = input.byte();
    if form == 0 {
        let mut bytes = [0; 80];
        let given = input.take(80);
        bytes[..given.len()].copy_from_slice(given);
        return (deserialize(&bytes).expect("any 80 bytes are a header"), 0);
    }
    let back = usize::from(input.byte());
    let parent = accepted[(accepted.len() - 1).saturating_sub(back)];
    let seconds = u32::from(input.u16());
    let root = bitcoin::hashes::Hash::from_byte_array([input.byte(); 32]);
    let mut header = shapes::header(&parent, root, seconds);
    header.bits = parent.bits;
    if form & 2 != 0 {
        header.bits = CompactTarget::from_consensus(input.u32());
    }
    if form & 4 != 0 {
        header.version = bitcoin::block::Version::from_consensus(input.u32() as i32);
    }
    if form & 8 == 0 {
        shapes::mine(&mut header);
    }
    let repeat = match form & 16 {
        0 => 0,
        _ => usize::from(input.byte()) * 16,
    };
    (header, repeat)
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
