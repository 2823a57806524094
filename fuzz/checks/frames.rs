//! A stream of bytes, however it is cut, is the messages that it is when read in one piece.
//!
//! The input: how many chunks are pushed before messages are taken; the length of a chunk, in
//! steps of 33 bytes; and the stream.

use xs_proto::{Decoder, Frame, FrameError, Header};

pub(crate) fn check(input: &[u8]) {
    let [patience, step, stream @ ..] = input else { return };
    let chunk = 1 + usize::from(*step) * 33;
    let (expected, rest) = whole(stream);

    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut end = Ok(());
    for (pushed, mut bytes) in stream.chunks(chunk).enumerate() {
        while !bytes.is_empty() && end.is_ok() {
            let len = push(&mut decoder, bytes, pushed.is_multiple_of(2));
            bytes = &bytes[len..];
            if !bytes.is_empty() || pushed.is_multiple_of(1 + usize::from(*patience)) {
                end = take(&mut decoder, &mut seen);
                assert!(end.is_err() || decoder.space().len() >= Frame::MAX);
            }
        }
    }
    let end = end.and_then(|()| take(&mut decoder, &mut seen));

    assert_eq!(seen, expected);
    assert_eq!(end, rest.map(drop));
    if let Ok(rest) = rest {
        assert_eq!(decoder.pending(), rest);
    } else {
        assert_eq!(decoder.next_frame().map(drop), end, "an error stays");
        decoder.clear();
        assert_eq!(decoder.next_frame(), Ok(None));
    }
}

type Message = (Header, Vec<u8>);

/// The messages of a stream that is there whole, and how many bytes of another are behind them.
fn whole(mut stream: &[u8]) -> (Vec<Message>, Result<usize, FrameError>) {
    let mut messages = Vec::new();
    loop {
        match Frame::parse(stream) {
            Ok(Some(frame)) => {
                let mut bytes = Vec::new();
                frame.emit(&mut bytes);
                assert_eq!(bytes, stream[..frame.len()]);
                messages.push((frame.header, frame.payload.to_vec()));
                stream = &stream[frame.len()..];
            }
            Ok(None) => return (messages, Ok(stream.len())),
            Err(error) => return (messages, Err(error)),
        }
    }
}

/// The two ways to give the decoder bytes.
fn push(decoder: &mut Decoder, bytes: &[u8], by_copy: bool) -> usize {
    if by_copy {
        return decoder.push(bytes);
    }
    let space = decoder.space();
    let len = bytes.len().min(space.len());
    space[..len].copy_from_slice(&bytes[..len]);
    decoder.filled(len);
    len
}

fn take(decoder: &mut Decoder, seen: &mut Vec<Message>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        seen.push((frame.header, frame.payload.to_vec()));
    }
    Ok(())
}
