//! Version 1 of the transport: the framing of messages, the extended header of Bitcoin SV, blocks that come in pieces.

use blockmill::wire::codec::{Decoder, HEADER_SIZE, MAX_PAYLOAD, encode_frame};
use blockmill::wire::{Message, RawMessage, WireError};

use super::Verdict;
use crate::{Input, memory, shapes};

/// A block of more bytes comes in pieces, where the input says that any does.
const STREAM_ABOVE: usize = 64;
const LARGEST_BLOCK: u64 = 5_000_000_000;

/// What comes out of a decoder. Pieces are put together: where they are cut depends on what was fed when.
#[derive(Debug, PartialEq)]
enum Event {
    Message(RawMessage),
    Block {
        total: u64,
        bytes: Vec<u8>,
        whole: bool,
    },
}

struct Settings {
    extended: bool,
    streaming: bool,
    verify_blocks: bool,
}

/// The first byte says how the decoder is set up and whether checksums are put right, the second in what pieces it is fed.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.byte();
    let piece = usize::from(input.byte()) + 1;
    let settings = Settings {
        extended: flags & 1 != 0,
        streaming: flags & 2 != 0,
        verify_blocks: flags & 4 == 0,
    };
    let mut stream = input.rest().to_vec();
    if flags & 8 == 0 {
        shapes::put_checksums_right(&mut stream);
    }
    // The decoder makes room for one announced message, whose length it has bounded.
    memory::bounded(MAX_PAYLOAD + memory::THE_CRATE + 100 * stream.len(), || {
        let (events, error) = decode(&stream, stream.len().max(1), &settings);
        let in_pieces = decode(&stream, piece, &settings);
        assert_eq!((&events, &error), (&in_pieces.0, &in_pieces.1));
        if !settings.extended && settings.verify_blocks && !settings.streaming {
            is_written_as_read(&stream, &events);
        }
        for event in &events {
            if let Event::Message(raw) = event
                && let Ok(message) = Message::read(raw.clone())
            {
                assert_eq!(message.command(), raw.command.as_str());
            }
        }
        Verdict::taken(!events.is_empty())
    })
}

fn decode(stream: &[u8], piece: usize, settings: &Settings) -> (Vec<Event>, Option<WireError>) {
    let mut decoder = Decoder::new(shapes::MAGIC);
    decoder.set_extended(settings.extended);
    decoder.set_verify_blocks(settings.verify_blocks);
    if settings.streaming {
        decoder.set_blocks(LARGEST_BLOCK, STREAM_ABOVE);
    }
    let mut events = Vec::new();
    for piece in stream.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => events.push(Event::Message(message)),
                Ok(None) => match decoder.next_piece() {
                    Some(piece) => take_piece(&mut events, piece),
                    None => break,
                },
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error), "it says the same again");
                    return (events, Some(error));
                }
            }
        }
    }
    (events, None)
}

fn take_piece(events: &mut Vec<Event>, piece: blockmill::wire::BlockPiece) {
    if let Some(total) = piece.total {
        assert!(total > STREAM_ABOVE as u64 && total <= LARGEST_BLOCK);
        assert!(piece.bytes.len() >= 80 || piece.last, "the whole header");
        events.push(Event::Block {
            total,
            bytes: Vec::new(),
            whole: false,
        });
    }
    let Some(Event::Block {
        total,
        bytes,
        whole,
    }) = events.last_mut()
    else {
        panic!("a piece of no block");
    };
    assert!(!*whole && !piece.bytes.is_empty());
    bytes.extend_from_slice(&piece.bytes);
    *whole = piece.last;
    assert_eq!(bytes.len() as u64 == *total, piece.last);
}

/// Framed again, the messages are the bytes that they came from.
fn is_written_as_read(stream: &[u8], events: &[Event]) {
    let mut at = 0;
    for event in events {
        let Event::Message(raw) = event else { continue };
        let frame = encode_frame(shapes::MAGIC, raw.command.as_str(), &raw.payload);
        assert_eq!(frame, stream[at..at + HEADER_SIZE + raw.payload.len()]);
        at += frame.len();
    }
}
