//! Both ends of a queue at once, in every interleaving, and with the stale reads that the C11
//! memory model allows (`loom`). No byte is taken before it was put: that fails if either order is
//! relaxed. No byte is overwritten before it was taken: `loom` tries the interleavings of that, but
//! not a load that is delayed behind a later store.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use loom::thread;
use xs_proto::ring::{Consumer, Field, LOAD, Producer, Queue, STORE, SharedPage};

const RING_SIZE: u32 = 1024;

/// A page that has the first two bytes of the requests' queue, and that queue's indexes.
struct Page {
    bytes: [AtomicU8; 2],
    consumer: AtomicU32,
    producer: AtomicU32,
}

impl Page {
    fn new(bytes: [u8; 2], consumer: u32, producer: u32) -> Arc<Self> {
        let (consumer, producer) = (AtomicU32::new(consumer), AtomicU32::new(producer));
        Arc::new(Self { bytes: bytes.map(AtomicU8::new), consumer, producer })
    }

    fn field(&self, field: Field) -> &AtomicU32 {
        match field {
            Field::RequestConsumer => &self.consumer,
            Field::RequestProducer => &self.producer,
            other => panic!("this page has no {other:?}"),
        }
    }
}

impl SharedPage for Page {
    fn copy_out(&self, offset: usize, out: &mut [u8]) {
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = self.bytes[offset + at].load(Ordering::Relaxed);
        }
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            self.bytes[offset + at].store(*byte, Ordering::Relaxed);
        }
    }

    fn load(&self, field: Field) -> u32 {
        self.field(field).load(LOAD)
    }

    fn store(&self, field: Field, value: u32) {
        self.field(field).store(value, STORE);
    }
}

#[test]
fn byte_is_not_taken_before_it_was_put() {
    loom::model(|| {
        let page = Page::new([0, 0], 0, 0);
        let store = Arc::clone(&page);
        let consuming = thread::spawn(move || {
            let mut consumer = Consumer::attach(&*store, Queue::Requests);
            let mut received = Vec::new();
            for _ in 0..2 {
                let mut bytes = [0; 2];
                let len = consumer.take(&*store, &mut bytes).unwrap();
                received.extend_from_slice(&bytes[..len]);
            }
            received
        });
        let mut producer = Producer::attach(&*page, Queue::Requests);
        for byte in [1, 2] {
            assert_eq!(producer.put(&*page, &[byte]), Ok(1));
        }
        let received = consuming.join().unwrap();
        assert!([1, 2].starts_with(&received), "{received:?}");
    });
}

#[test]
fn byte_is_not_overwritten_before_it_was_taken() {
    loom::model(|| {
        // A full queue, whose oldest byte is 7.
        let page = Page::new([7, 0], 0, RING_SIZE);
        let store = Arc::clone(&page);
        let consuming = thread::spawn(move || {
            let mut byte = [0];
            let taken = Consumer::attach(&*store, Queue::Requests).take(&*store, &mut byte);
            assert_eq!(taken, Ok(1));
            byte
        });
        let put = Producer::attach(&*page, Queue::Requests).put(&*page, &[8]);
        assert!(matches!(put, Ok(0 | 1)), "{put:?}");
        assert_eq!(consuming.join().unwrap(), [7]);
    });
}
