//! Looking a device up among those of many guests: ours, and upstream's two linked lists.

use std::collections::LinkedList;
use std::hint::black_box;

use benches::{devices, shuffled};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use devd_core::{DeviceKey, Domid, Registry};

const GUESTS: [Domid; 3] = [1, 100, 10_000];

/// libxl's way: a list of guests, each with a list of its devices, the newest first.
type Lists = LinkedList<(Domid, LinkedList<DeviceKey>)>;

fn lists(guests: Domid) -> Lists {
    let mut lists = Lists::new();
    for key in devices(guests) {
        match lists.front_mut() {
            Some((domid, of_guest)) if *domid == key.domid => of_guest.push_front(key),
            _ => lists.push_front((key.domid, LinkedList::from([key]))),
        }
    }
    lists
}

fn find(lists: &Lists, key: DeviceKey) -> bool {
    let guest = lists.iter().find(|(domid, _)| *domid == key.domid);
    guest.is_some_and(|(_, of_guest)| of_guest.contains(&key))
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for guests in GUESTS {
        let keys: Vec<DeviceKey> = devices(guests).collect();
        let mut registry = Registry::new();
        for key in &keys {
            registry.insert(*key);
        }
        assert_eq!((registry.len(), registry.guests()), (keys.len(), usize::from(guests)));
        let absent = DeviceKey { devid: 7, ..keys[0] };
        assert_eq!(registry.find(absent), None);

        group.bench_with_input(BenchmarkId::new("ours", guests), &keys, |b, keys| {
            let mut order = shuffled(42);
            b.iter(|| {
                let key = keys[order.next().unwrap() % keys.len()];
                assert!(registry.find(black_box(key)).is_some());
            });
        });
        let lists = lists(guests);
        assert!(!find(&lists, absent));
        group.bench_with_input(BenchmarkId::new("upstream's lists", guests), &keys, |b, keys| {
            let mut order = shuffled(42);
            b.iter(|| {
                let key = keys[order.next().unwrap() % keys.len()];
                assert!(find(&lists, black_box(key)));
            });
        });
    }
    group.finish();
}

fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert and remove");
    for guests in GUESTS {
        let mut registry = Registry::new();
        for key in devices(guests) {
            registry.insert(key);
        }
        let count = registry.len();
        let new = DeviceKey { devid: 7, ..devices(1).next().unwrap() };
        group.bench_function(BenchmarkId::from_parameter(guests), |b| {
            b.iter(|| {
                let index = registry.insert(black_box(new));
                registry.remove(index);
                assert_eq!(registry.len(), count);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, churn);
criterion_main!(benches);
