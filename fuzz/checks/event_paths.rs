//! The path of an event means what a slow and obvious parser says.
//!
//! The input: the path.

use devd_core::{BackendPath, DeviceKey, Kind, Leaf};

pub(crate) fn check(input: &[u8]) {
    let path = BackendPath::parse(input);
    assert_eq!(path, obvious(input).unwrap_or(BackendPath::Foreign));
    if let BackendPath::Device(key, Leaf::Directory) = path {
        let spelled = key.to_string();
        let home = input.strip_suffix(spelled.as_bytes()).expect("a device has one spelling");
        assert!(home.is_empty() || home.starts_with(b"/local/domain/"));
    }
}

fn obvious(path: &[u8]) -> Option<BackendPath<'_>> {
    let mut parts = path.splitn(9, |byte| *byte == b'/');
    let mut first = parts.next()?;
    let mut relative = path;
    if first.is_empty() {
        let above = [parts.next()?, parts.next()?];
        let domid = parts.next()?;
        if above != [&b"local"[..], b"domain"] {
            return None;
        }
        number(domid)?;
        first = parts.next()?;
        relative = &path["/local/domain//".len() + domid.len()..];
    }
    if first != b"backend" {
        return None;
    }
    // At most five: what is behind the device's number is one name, whatever is in it.
    let parts: Vec<&[u8]> = relative.splitn(5, |byte| *byte == b'/').collect();
    let Some(name) = parts.get(1) else { return Some(BackendPath::Backend) };
    let Some(kind) = Kind::ALL.iter().find(|kind| kind.name().as_bytes() == *name) else {
        return Some(BackendPath::UnknownKind(name));
    };
    let Some(domid) = parts.get(2) else { return Some(BackendPath::Kind(*kind)) };
    let domid = u16::try_from(number(domid)?).ok()?;
    let Some(devid) = parts.get(3) else { return Some(BackendPath::Guest(*kind, domid)) };
    let key = DeviceKey { kind: *kind, domid, devid: number(devid)? };
    let leaf = match parts.get(4) {
        None => Leaf::Directory,
        Some(&b"state") => Leaf::State,
        Some(&b"online") => Leaf::Online,
        Some(&b"script") => Leaf::Script,
        Some(&b"type") => Leaf::Type,
        Some(_) => Leaf::Other,
    };
    Some(BackendPath::Device(key, leaf))
}

/// A number in its only spelling.
fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
