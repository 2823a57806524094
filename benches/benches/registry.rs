//! Looking up, inserting and removing one of many devices: ours, and upstream's two lists.

use std::hint::black_box;

use benches::allocations::{Allocations, Counting};
use benches::reference::Lists;
use benches::versus::{CPU, Way, compare, ratio};
use benches::{Shuffled, any_device, devices};
use criterion::{BenchmarkId, Criterion, criterion_group};
use devd_core::{DeviceKey, Domid, Registry};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GUESTS: [Domid; 6] = [1, 10, 100, 1_000, 10_000, 32_000];

/// So many guests' devices in both, checked.
struct Both {
    registry: Registry,
    lists: Lists,
    /// Bytes that the registry takes for each.
    bytes: usize,
}

impl Both {
    fn of(guests: Domid) -> Self {
        let before = Allocations::now().bytes;
        let mut registry = Registry::new();
        for key in devices(guests) {
            registry.insert(key);
        }
        let bytes = (Allocations::now().bytes - before) / registry.len();
        let mut lists = Lists::new();
        devices(guests).for_each(|key| assert!(lists.insert(key)));

        assert_eq!((registry.len(), registry.guests()), (devices(guests).count(), guests.into()));
        let mut order = Shuffled::new(3);
        for _ in 0..100 {
            let key = any_device(guests, &mut order);
            assert!(registry.find(key).is_some() && lists.find(key));
            let absent = DeviceKey { devid: 7, ..key };
            assert!(registry.find(absent).is_none() && !lists.find(absent));
        }
        Self { registry, lists, bytes }
    }
}

fn look_up(registry: &Registry, key: DeviceKey) {
    assert!(registry.find(black_box(key)).is_some());
}

/// Takes a device away and puts it back.
fn renew(registry: &mut Registry, key: DeviceKey) {
    let index = registry.find(black_box(key)).unwrap();
    registry.remove(index);
    registry.insert(key);
}

fn registry(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry");
    for guests in GUESTS {
        let Both { mut registry, .. } = Both::of(guests);
        let mut order = Shuffled::new(42);
        group.bench_function(BenchmarkId::new("look up", guests), |b| {
            b.iter(|| look_up(&registry, any_device(guests, &mut order)));
        });
        group.bench_function(BenchmarkId::new("remove and insert", guests), |b| {
            b.iter(|| renew(&mut registry, any_device(guests, &mut order)));
        });
    }
    group.finish();
}

fn ratios() {
    let mut first = None;
    for guests in GUESTS {
        let Both { mut registry, mut lists, bytes } = Both::of(guests);
        let mut order = [1, 1, 2, 2].map(Shuffled::new);
        let [of_registry, of_lists, of_registry_too, of_lists_too] = &mut order;
        let found = compare(
            &format!("look up, {guests} guests"),
            CPU,
            1,
            vec![
                Way::new("ours", |count| {
                    (0..count).for_each(|_| look_up(&registry, any_device(guests, of_registry)));
                }),
                Way::new("upstream's two lists", |count| {
                    for _ in 0..count {
                        assert!(lists.find(black_box(any_device(guests, of_lists))));
                    }
                }),
            ],
        );
        let renewed = compare(
            &format!("remove and insert, {guests} guests"),
            CPU,
            1,
            vec![
                Way::new("ours", |count| {
                    (0..count)
                        .for_each(|_| renew(&mut registry, any_device(guests, of_registry_too)));
                }),
                Way::new("upstream's two lists", |count| {
                    for _ in 0..count {
                        let key = black_box(any_device(guests, of_lists_too));
                        assert!(lists.remove(key) && lists.insert(key));
                    }
                }),
            ],
        );
        let &mut (found_first, renewed_first) = first.get_or_insert((found[0], renewed[0]));
        println!(
            "growth from 1 to {guests} guests: look up {}, remove and insert {}; {bytes} bytes a \
             device",
            ratio(found[0], found_first),
            ratio(renewed[0], renewed_first),
        );
    }
}

criterion_group!(benches, registry);

fn main() {
    ratios();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
