//! Counterparts for a client under test.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part of it")]

pub mod device;
pub mod server;
pub mod site;
pub mod store;

use xs_proto::{Frame, Header, MessageType, WatchEvent};

/// A message as bytes.
pub fn message(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut bytes = Vec::new();
    Frame { header: Header { kind, req_id, tx_id, len }, payload }.emit(&mut bytes);
    bytes
}

/// A watch event as xenstored's socket sends it.
pub fn event(path: &[u8], token: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    WatchEvent { path, token }.emit(&mut payload);
    message(MessageType::WatchEvent.to_wire(), 0, 0, &payload)
}
