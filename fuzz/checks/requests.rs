//! A request that parses is written as bytes that parse as the same request, alone and as a
//! message.
//!
//! The input: the number of the message's type, and its payload.

use xs_proto::{Frame, Header, MessageType, PAYLOAD_MAX, Path, Request, TooLong};

pub(crate) fn check(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else { return };
    let Some(kind) = MessageType::from_wire(u32::from(*kind)) else { return };
    let Ok(request) = Request::parse(kind, payload) else { return };
    assert_eq!(request.message_type(), kind);

    let mut bytes = Vec::new();
    request.emit(&mut bytes);
    assert_eq!(Request::parse(kind, &bytes), Ok(request));

    let mut message = Vec::new();
    match request.encode(7, 9, &mut message) {
        Ok(()) => {
            let len = u32::try_from(bytes.len()).expect("it fits a message");
            let header = Header { kind: kind.to_wire(), req_id: 7, tx_id: 9, len };
            assert_eq!(Frame::parse(&message), Ok(Some(Frame { header, payload: &bytes })));
        }
        Err(TooLong { len }) => {
            assert!(len == bytes.len() && len > PAYLOAD_MAX);
            assert!(message.is_empty());
        }
    }

    if let Request::Read { path } = request {
        check_path(path);
    }
}

/// A path is its components, and none of them is empty.
fn check_path(bytes: &[u8]) {
    let Ok(path) = Path::new(bytes) else { return };
    let components: Vec<&[u8]> = path.components().collect();
    assert!(components.iter().all(|component| !component.is_empty()));
    let slash: &[u8] = if path.is_absolute() { b"/" } else { b"" };
    assert_eq!([slash, &components.join(&b'/')].concat(), bytes);
}
