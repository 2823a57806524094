//! Parsers of any input: no function panics, and a parsed message is emitted as it was read.

use proptest::prelude::*;
use xs_proto::ring::SharedPage;
use xs_proto::{
    Decoder, Frame, Header, MessageType, Path, PermissionList, Reply, Request, WatchEvent, ring,
};

/// Bytes that are often, but not always, what a payload may be.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => proptest::sample::select(b"/0123456789abTFnrwb@-_\0".to_vec()),
        1 => any::<u8>(),
    ];
    proptest::collection::vec(byte, 0..80)
}

fn kind() -> impl Strategy<Value = MessageType> {
    let known: Vec<MessageType> = (0..64).filter_map(MessageType::from_wire).collect();
    proptest::sample::select(known)
}

proptest! {
    #[test]
    fn a_request_that_parses_parses_again_from_its_own_bytes(kind in kind(), bytes in payload()) {
        if let Ok(request) = Request::parse(kind, &bytes) {
            let mut out = Vec::new();
            request.emit(&mut out);
            prop_assert_eq!(Request::parse(kind, &out), Ok(request));
        }
    }

    #[test]
    fn a_reply_that_parses_parses_again_from_its_own_bytes(kind in kind(), bytes in payload()) {
        if let Ok(reply) = Reply::parse(kind, &bytes) {
            let mut out = Vec::new();
            reply.emit(&mut out);
            prop_assert_eq!(Reply::parse(kind, &out), Ok(reply));
        }
    }

    #[test]
    fn an_event_that_parses_is_a_part_of_its_bytes(bytes in payload()) {
        if let Ok(event) = WatchEvent::parse(&bytes) {
            let mut out = Vec::new();
            event.emit(&mut out);
            prop_assert!(bytes.starts_with(&out));
        }
    }

    #[test]
    fn a_path_is_its_components(bytes in payload()) {
        if let Ok(path) = Path::new(&bytes) {
            let joined = path.components().collect::<Vec<_>>().join(&b'/');
            let slash: &[u8] = if path.is_absolute() { b"/" } else { b"" };
            prop_assert_eq!([slash, &joined].concat(), bytes);
        }
    }

    #[test]
    fn permissions_that_parse_are_written_as_they_were_but_for_zeros(bytes in payload()) {
        if let Ok(list) = PermissionList::parse(&bytes) {
            let mut out = Vec::new();
            list.iter().for_each(|permission| permission.emit(&mut out));
            let again = PermissionList::parse(&out).unwrap();
            prop_assert!(again.iter().eq(list.iter()));
        }
    }

    #[test]
    fn any_stream_is_frames_or_an_error(
        stream in proptest::collection::vec(any::<u8>(), 0..2000),
        cut in 1..600_usize,
    ) {
        let mut decoder = Decoder::new();
        let mut taken = 0;
        'stream: for chunk in stream.chunks(cut) {
            prop_assert_eq!(decoder.push(chunk), chunk.len());
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => taken += frame.len(),
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert!(error.len > 4096);
                        break 'stream;
                    }
                }
            }
        }
        prop_assert!(taken <= stream.len());
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        cut in 1..500_usize,
    ) {
        let mut stream = Vec::new();
        for (req_id, payload) in (0..).zip(&payloads) {
            let len = u32::try_from(payload.len()).unwrap();
            Frame { header: Header { kind: 2, req_id, tx_id: 0, len }, payload }.emit(&mut stream);
        }
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for chunk in stream.chunks(cut) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame.payload.to_vec());
            }
        }
        prop_assert_eq!(seen, payloads);
    }

    #[test]
    fn any_indexes_of_a_ring_are_refused_or_stay_within_it(
        consumer in any::<u32>(),
        ahead in prop_oneof![0..2048_u32, any::<u32>()],
        len in 0..3000_usize,
    ) {
        let page = ring::Page::new();
        page.store(ring::Field::RequestConsumer, consumer);
        page.store(ring::Field::RequestProducer, consumer.wrapping_add(ahead));
        let mut requests = ring::Producer::attach(&page, ring::Queue::Requests);
        let mut bytes = vec![0; len];
        match requests.put(&page, &bytes) {
            Ok(put) => {
                let mut store = ring::Consumer::attach(&page, ring::Queue::Requests);
                let taken = store.take(&page, &mut bytes).unwrap();
                prop_assert!(put <= len && taken == len.min(put + ahead as usize));
                prop_assert!(store.readable(&page).unwrap() <= ring::RING_SIZE);
            }
            Err(_) => prop_assert!(ahead > 1024),
        }
    }
}
