//! A connection makes the same of a stream of bytes, however it is cut.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::message;
use xs_client::{Arrival, Connection, Event, Oddities, Quirks};
use xs_proto::Request;

/// How many requests have no answer yet when the stream begins; their ids are 1 to 8.
const REQUESTS: usize = 8;

/// The answers, events and counts that a connection makes of a stream.
#[derive(Debug, PartialEq)]
struct Made {
    answers: Vec<String>,
    events: Vec<String>,
    oddities: Oddities,
    /// The stream was given up.
    broken: bool,
}

fn make(stream: &[u8], cuts: &[usize], quirks: Quirks) -> Made {
    let mut connection = Connection::new(quirks);
    for ticket in 0..REQUESTS {
        let request = match ticket % 4 {
            0 => Request::Read { path: b"a" },
            1 => Request::Watch { path: b"a", token: b"t", depth: None },
            2 => Request::Directory { path: b"a" },
            _ => Request::Unwatch { path: b"a", token: b"t" },
        };
        connection.queue(ticket, 0, &request).unwrap();
    }
    let (mut answers, mut rest, mut broken) = (Vec::new(), stream, false);
    let mut cuts = cuts.iter().cycle();
    'stream: while !rest.is_empty() {
        let space = connection.space();
        let len = cuts.next().copied().unwrap_or(usize::MAX).min(rest.len()).min(space.len());
        space[..len].copy_from_slice(&rest[..len]);
        connection.filled(len);
        rest = &rest[len..];
        loop {
            match connection.next_arrival() {
                Ok(Some(Arrival::Answer(answer))) => answers.push(format!("{answer:?}")),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break 'stream;
                }
            }
        }
    }
    let mut events = Vec::new();
    while let Some(event) = connection.next_event() {
        let is_resync = matches!(event, Event::Resync);
        assert!(!is_resync || events.is_empty(), "a resync stands for all before it");
        events.push(format!("{event:?}"));
    }
    Made { answers, events, oddities: connection.oddities(), broken }
}

/// A message that may be an answer, an event, or neither.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![8 => 0..23u32, 8 => Just(15), 4 => Just(2), 1 => any::<u32>()];
    let req_id = prop_oneof![8 => 0..10u32, 1 => any::<u32>()];
    let payload = prop_oneof![
        Just(b"OK\0".to_vec()),
        Just(b"ENOENT\0".to_vec()),
        Just(b"a/b\0token\0".to_vec()),
        vec(any::<u8>(), 0..40),
        vec(any::<u8>(), 4000..=4096),
    ];
    (kind, req_id, payload).prop_map(|(kind, req_id, payload)| message(kind, req_id, 0, &payload))
}

proptest! {
    #[test]
    fn cutting_the_stream_elsewhere_changes_nothing(
        messages in vec(any_message(), 0..20),
        junk in vec(any::<u8>(), 0..64),
        cuts in vec(prop_oneof![1..20usize, 1..5000usize], 1..20),
        device in any::<bool>(),
    ) {
        // As many under way as on a socket: this is about what comes back.
        let several = Quirks { window: 16, ..Quirks::DEVICE };
        let quirks = if device { several } else { Quirks::SOCKET };
        let stream = [messages.concat(), junk].concat();
        let whole = make(&stream, &[usize::MAX], quirks);
        prop_assert_eq!(&make(&stream, &cuts, quirks), &whole);
        prop_assert_eq!(&make(&stream, &[1], quirks), &whole);
    }
}
