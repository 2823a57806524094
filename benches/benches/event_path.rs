//! Event path → (device key, leaf): ours, and the way upstream goes.

use std::ffi::{CStr, CString};
use std::hint::black_box;

use benches::EVENTS;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use devd_core::{BackendPath, DeviceKey, Kind, Leaf};

/// What an event is about, if it is of a `state` node.
fn ours(path: &[u8]) -> Option<DeviceKey> {
    match BackendPath::parse(path) {
        BackendPath::Device(key, Leaf::State) => Some(key),
        _ => None,
    }
}

/// The steps of libxl's `backend_watch_callback`, with safe means: the last component is
/// compared with `state` and cut off a copy of the path, the rest is taken apart again from
/// the front, and the kind is looked for in a table from its beginning.
fn upstream(path: &CStr) -> Option<DeviceKey> {
    let copy = path.to_owned();
    let bytes = copy.as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
    if &bytes[slash + 1..] != b"state" {
        return None;
    }
    let text = String::from_utf8_lossy(&bytes[..slash]).into_owned();
    let mut words = text.split('/');
    let (_, kind, domid, devid) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let kind = *Kind::ALL.iter().find(|known| known.name() == kind)?;
    Some(DeviceKey { kind, domid: domid.parse().ok()?, devid: devid.parse().ok()? })
}

fn event_path(c: &mut Criterion) {
    let c_paths: Vec<CString> = EVENTS.iter().map(|path| CString::new(*path).unwrap()).collect();
    for (path, c_path) in EVENTS.iter().zip(&c_paths) {
        assert_eq!(ours(path.as_bytes()), upstream(c_path), "{path}");
    }
    let of_state = EVENTS.iter().filter(|path| ours(path.as_bytes()).is_some()).count();
    assert_eq!(of_state, 6);

    let mut group = c.benchmark_group("event_path");
    group.throughput(Throughput::Elements(EVENTS.len() as u64));
    group.bench_function("ours", |b| {
        b.iter(|| {
            let found = EVENTS.iter().filter(|path| ours(black_box(path.as_bytes())).is_some());
            assert_eq!(found.count(), of_state);
        });
    });
    group.bench_function("upstream's steps", |b| {
        b.iter(|| {
            let found = c_paths.iter().filter(|path| upstream(black_box(path)).is_some());
            assert_eq!(found.count(), of_state);
        });
    });
    group.finish();
}

criterion_group!(benches, event_path);
criterion_main!(benches);
