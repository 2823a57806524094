//! A reply, or an event, that parses is written as bytes that parse as the same.
//!
//! The input: the number of the message's type, and its payload.

use xs_proto::{MessageType, Permission, PermissionList, Reply, WatchEvent};

pub(crate) fn check(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else { return };
    let Some(kind) = MessageType::from_wire(u32::from(*kind)) else { return };
    if kind == MessageType::WatchEvent {
        check_event(payload);
    }
    let Ok(reply) = Reply::parse(kind, payload) else { return };
    assert_eq!(reply.message_type(), kind);

    let mut bytes = Vec::new();
    reply.emit(&mut bytes);
    match reply {
        Reply::Directory(names) => {
            let again: Vec<u8> = names.iter().flat_map(|name| [name, &[0]].concat()).collect();
            assert_eq!(again, payload);
        }
        Reply::GetPerms(list) => check_permissions(list),
        _ => {}
    }
    assert_eq!(Reply::parse(kind, &bytes), Ok(reply));
}

/// What is behind the token is no part of the event.
fn check_event(payload: &[u8]) {
    assert!(Reply::parse(MessageType::WatchEvent, payload).is_err());
    let Ok(event) = WatchEvent::parse(payload) else { return };
    let mut bytes = Vec::new();
    event.emit(&mut bytes);
    assert!(payload.starts_with(&bytes));
    assert_eq!(WatchEvent::parse(&bytes), Ok(event));
}

/// No entry is lost, though its number may have been spelled with zeros.
fn check_permissions(list: PermissionList<'_>) {
    let entries: Vec<Permission> = list.iter().collect();
    let nuls = list.as_bytes().iter().filter(|byte| **byte == 0).count();
    assert_eq!(entries.len(), nuls);
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.emit(&mut bytes));
    let again = PermissionList::parse(&bytes).expect("what was written parses");
    assert!(again.iter().eq(entries));
}
