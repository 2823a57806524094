//! Event path → (device key, leaf): ours, and upstream's way.

use std::ffi::CString;
use std::hint::black_box;

use benches::events;
use benches::reference::{Node, event_path, event_path_early};
use benches::versus::{CPU, Way, compare};
use criterion::{Criterion, Throughput, criterion_group};
use devd_core::{BackendPath, DeviceKey};

const COUNT: usize = 4096;

/// What an event is about, in the form that the reference says it in: to be compared, not to be
/// measured.
fn ours(path: &[u8]) -> Option<(DeviceKey, Node)> {
    Node::of(&BackendPath::parse(path))
}

struct Paths {
    relative: Vec<String>,
    absolute: Vec<String>,
    c: Vec<CString>,
}

impl Paths {
    /// All ways are to say the same of each.
    fn checked() -> Self {
        let relative = events::relative(COUNT);
        let absolute = events::absolute(&relative);
        let c: Vec<CString> =
            absolute.iter().map(|path| CString::new(path.as_str()).unwrap()).collect();
        for ((relative, absolute), c) in relative.iter().zip(&absolute).zip(&c) {
            let found = ours(relative.as_bytes());
            assert_eq!(found, ours(absolute.as_bytes()), "{absolute}");
            // The directory itself looks to the reference like a node of no device.
            assert_eq!(found, event_path(c), "{absolute}");
            let matters = found.filter(|(_, node)| *node != Node::Other);
            assert_eq!(matters, event_path_early(c), "{absolute}");
        }
        let of = |node| {
            let parsed =
                relative.iter().filter_map(|path| ours(path.as_bytes()).map(|(_, node)| node));
            parsed.filter(|other| *other == node).count()
        };
        println!(
            "{COUNT} paths: {} of state, {} of online, {} of other nodes",
            of(Node::State),
            of(Node::Online),
            of(Node::Other)
        );
        Self { relative, absolute, c }
    }
}

fn event_paths(c: &mut Criterion) {
    let paths = Paths::checked();
    let mut group = c.benchmark_group("event_path");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("ours, relative", |b| b.iter(|| parse(&paths.relative)));
    group.bench_function("ours, absolute", |b| b.iter(|| parse(&paths.absolute)));
    group.bench_function("upstream's way", |b| {
        b.iter(|| {
            paths.c.iter().for_each(|path| {
                black_box(event_path(black_box(path)));
            })
        });
    });
    group.finish();
}

fn parse(paths: &[String]) {
    for path in paths {
        black_box(BackendPath::parse(black_box(path.as_bytes())));
    }
}

/// The ratios: one path after the other, all of them again and again.
fn ratios() {
    let paths = Paths::checked();
    compare(
        "event path",
        CPU,
        1,
        vec![
            Way::new("ours, relative (as watched)", |count| {
                for i in 0..count as usize {
                    let path = paths.relative[i % COUNT].as_bytes();
                    black_box(BackendPath::parse(black_box(path)));
                }
            }),
            Way::new("ours, absolute", |count| {
                for i in 0..count as usize {
                    let path = paths.absolute[i % COUNT].as_bytes();
                    black_box(BackendPath::parse(black_box(path)));
                }
            }),
            Way::new("upstream's, state only", |count| {
                for i in 0..count as usize {
                    black_box(event_path_early(black_box(&paths.c[i % COUNT])));
                }
            }),
            Way::new("upstream's", |count| {
                for i in 0..count as usize {
                    black_box(event_path(black_box(&paths.c[i % COUNT])));
                }
            }),
        ],
    );
}

criterion_group!(benches, event_paths);

fn main() {
    ratios();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
