//! Whole lives of devices, decided: every event, observation and action of them.

use benches::allocations::{Allocations, Counting};
use benches::life::Lives;
use benches::versus::{CPU, Way, compare, ratio};
use benches::{DEVICES, Shuffled};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use devd_core::Domid;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GUESTS: [Domid; 3] = [1, 1_000, 32_000];

/// The next life is of any of the guests.
fn renew_any(lives: &mut Lives, guests: Domid, order: &mut Shuffled) {
    lives.renew(Domid::try_from(order.below(guests.into())).unwrap() + 1);
}

fn dispatcher(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatcher");
    group.throughput(Throughput::Elements(DEVICES.len() as u64));
    for guests in GUESTS {
        let mut lives = Lives::of(guests);
        let mut order = Shuffled::new(1);
        group.bench_function(BenchmarkId::new("a guest's four lives", guests), |b| {
            b.iter(|| renew_any(&mut lives, guests, &mut order));
        });
    }
    group.finish();
}

fn figures() {
    let mut first = None;
    for guests in GUESTS {
        let before = Allocations::now().bytes;
        let mut lives = Lives::of(guests);
        let bytes = Allocations::now().bytes - before;
        let mut order = Shuffled::new(1);
        (0..100).for_each(|_| renew_any(&mut lives, guests, &mut order));

        let (events, allocations) = (lives.events(), Allocations::now().calls);
        (0..1000).for_each(|_| renew_any(&mut lives, guests, &mut order));
        let events = lives.events() - events;
        let allocations = Allocations::now().calls - allocations;

        let took = compare(
            &format!("device life, {guests} guests"),
            CPU,
            DEVICES.len().try_into().unwrap(),
            vec![Way::new("ours", |count| {
                (0..count).for_each(|_| renew_any(&mut lives, guests, &mut order));
            })],
        )[0];
        #[allow(clippy::cast_precision_loss)] // Small numbers.
        let each = |count: usize, of: u64| count as f64 / of as f64;
        println!(
            "{:.1} events a life, {:.3} allocations an event, {} bytes a device; growth from 1 \
             guest {}",
            events as f64 / 4000.0,
            each(allocations, events),
            bytes / (usize::from(guests) * DEVICES.len()),
            ratio(took, *first.get_or_insert(took)),
        );
    }
}

criterion_group!(benches, dispatcher);

fn main() {
    figures();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
