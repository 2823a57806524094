//! The client over a device that behaves as Linux's `/dev/xen/xenbus` does. How that differs
//! from xenstored's socket is told by twelve rows, after the kernel's
//! `drivers/xen/xenbus/xenbus_dev_frontend.c`; each has its tests.

mod support;

use std::time::{Duration, Instant};

use support::device::client;
use xs_client::{
    Arrival, Batch, Client, Connection, Error, Event, Outcome, Quirks, Transport, WaitFor,
};
use xs_proto::{ErrorCode, Header, MessageType, Reply, Request, WatchEvent};

/// Takes all queued events: path and token.
fn events(client: &mut Client) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut events = Vec::new();
    while let Some(event) = client.next_event() {
        match event {
            Event::Watch(event) => events.push((event.path.to_vec(), event.token.to_vec())),
            Event::Resync => events.push((b"resync".to_vec(), Vec::new())),
        }
    }
    events
}

fn pair(path: &str, token: &str) -> (Vec<u8>, Vec<u8>) {
    (path.into(), token.into())
}

/// The device's rules for a connection that is not fed by a client, which sends one by one.
const SEVERAL_UNDER_WAY: Quirks = Quirks { window: 16, ..Quirks::DEVICE };

#[test]
fn row_1_room_to_write_is_never_waited_for() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().no_room = 3;
    let mut batch = Batch::new();
    for i in 0..40 {
        batch.write(format!("data/{i}"), "v");
    }
    client.run(&mut batch).unwrap();
    client.write("data/a", "v").unwrap();

    let kernel = kernel.lock().unwrap();
    assert_eq!(kernel.store.nodes.len(), 41);
    assert!(!kernel.waits.is_empty());
    assert!(kernel.waits.iter().all(|what| *what == WaitFor::Input), "{:?}", kernel.waits);
}

#[test]
fn row_2_a_write_carries_one_whole_message() {
    let (mut client, kernel) = client();
    let mut batch = Batch::new();
    for i in 0..32 {
        batch.write(format!("data/{i}"), vec![b'x'; i * 50]);
    }
    client.run(&mut batch).unwrap();
    assert!((0..32).all(|i| batch.reply(i).is_ok()));

    let kernel = kernel.lock().unwrap();
    assert_eq!(kernel.writes.len(), 32);
    for write in &kernel.writes {
        let header = Header::parse(write.first_chunk().unwrap());
        assert_eq!(write.len(), Header::LEN + usize::try_from(header.len).unwrap());
    }
}

#[test]
fn row_3_the_longest_payload_is_4080_bytes() {
    let (mut client, kernel) = client();
    let longest = vec![b'x'; 4080 - "data/a\0".len()];
    client.write("data/a", &longest).unwrap();
    assert_eq!(client.read("data/a").unwrap(), longest);

    let writes = kernel.lock().unwrap().writes.len();
    let too_long = [&longest[..], b"x"].concat();
    let error = client.write("data/a", &too_long).unwrap_err();
    assert!(matches!(error, Error::TooLong { len: 4081, max: 4080 }), "{error}");
    let mut batch = Batch::new();
    batch.write("data/a", &too_long);
    batch.read("data/a");
    client.run(&mut batch).unwrap();
    assert_eq!(batch.reply(0), Err(&ErrorCode::TooBig));
    assert_eq!(batch.reply(1), Ok(&longest[..]));
    assert_eq!(kernel.lock().unwrap().writes.len(), writes + 1, "only the read was written");
}

#[test]
fn row_3_too_small_buffer_refuses_that_request_only() {
    for errno in [22, 7] {
        let mut connection = Connection::new(SEVERAL_UNDER_WAY);
        connection.queue(0, 0, &Request::Write { path: b"a", value: b"v" }).unwrap();
        connection.queue(1, 0, &Request::Read { path: b"a" }).unwrap();
        let code = ErrorCode::from_errno(errno).unwrap();
        let answer = connection.transmit_refused(errno).unwrap();
        assert_eq!((answer.ticket, answer.reply), (0, Ok(Reply::Error(code))));
        let next = Header::parse(connection.transmit().first_chunk().unwrap());
        assert_eq!(next.message_type(), Some(MessageType::Read));
        assert_eq!(connection.outstanding(), 1);
    }
}

#[test]
fn row_4_sleeping_write_does_not_count_as_silence() {
    let (mut client, kernel) = client();
    client.set_timeout(Duration::from_millis(500));
    kernel.lock().unwrap().watch_takes = Duration::from_millis(600);
    let before = Instant::now();
    client.watch("backend", "t").unwrap();
    client.unwatch("backend", "t").unwrap();
    assert!(before.elapsed() >= Duration::from_millis(1200));
    assert_eq!(events(&mut client), [pair("backend", "t")]);
}

#[test]
fn row_5_watch_refused_by_errno_is_the_only_refusal() {
    let (mut client, kernel) = client();
    for (errno, code) in [
        (28, ErrorCode::NoSpc),
        (7, ErrorCode::TooBig),
        (5, ErrorCode::Io),
        (121, ErrorCode::from_name(b"errno 121")),
    ] {
        kernel.lock().unwrap().refuse_watch = Some(errno);
        let error = client.watch("backend", "t").unwrap_err();
        assert_eq!(error.refusal(), Some(&code));
        assert!(client.is_connected());
    }
    // The client does not remember the refused watch.
    client.watch("backend", "t").unwrap();
    client.write("data/a", "v").unwrap();
    assert_eq!(kernel.lock().unwrap().watches.len(), 1);
    assert_eq!(kernel.lock().unwrap().opened, 1);
}

#[test]
fn row_5_other_request_failing_to_write_ends_connection() {
    let mut connection = Connection::new(SEVERAL_UNDER_WAY);
    connection.queue(0, 0, &Request::Read { path: b"a" }).unwrap();
    assert_eq!(connection.transmit_refused(5), None);
    let mut connection = Connection::new(Quirks::SOCKET);
    connection.queue(0, 0, &Request::Watch { path: b"a", token: b"t", depth: None }).unwrap();
    assert_eq!(connection.transmit_refused(28), None);
}

#[test]
fn row_6_acknowledgements_without_an_id_find_their_request() {
    for old in [true, false] {
        let (mut client, kernel) = client();
        kernel.lock().unwrap().old = old;
        client.watch("backend", "t").unwrap();
        client.watch("@releaseDomain", "gone").unwrap();
        client.unwatch("backend", "t").unwrap();
        assert_eq!(kernel.lock().unwrap().watches, [pair("@releaseDomain", "gone")]);
        assert_eq!(client.oddities().stray_answers, 0);
    }
}

#[test]
fn row_6_ack_without_id_belongs_to_oldest_watch_of_its_type() {
    let mut connection = Connection::new(SEVERAL_UNDER_WAY);
    connection.queue(0, 0, &Request::Read { path: b"a" }).unwrap();
    connection.queue(1, 0, &Request::Watch { path: b"a", token: b"t", depth: None }).unwrap();
    connection.queue(2, 0, &Request::Unwatch { path: b"a", token: b"t" }).unwrap();
    connection.queue(3, 0, &Request::Watch { path: b"b", token: b"t", depth: None }).unwrap();

    let mut ack = |kind: MessageType| {
        let bytes = support::message(kind.to_wire(), 0, 0, b"OK\0");
        connection.space()[..bytes.len()].copy_from_slice(&bytes);
        connection.filled(bytes.len());
        match connection.next_arrival().unwrap() {
            Some(Arrival::Answer(answer)) => Some(answer.ticket),
            _ => None,
        }
    };
    assert_eq!(ack(MessageType::Watch), Some(1));
    assert_eq!(ack(MessageType::Watch), Some(3));
    assert_eq!(ack(MessageType::Unwatch), Some(2));
    assert_eq!(ack(MessageType::Unwatch), None);
    assert_eq!(ack(MessageType::Write), None);
}

#[test]
fn row_7_the_ids_of_an_event_say_nothing() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    events(&mut client);
    // Sixteen events run through eight values of req_id while requests use the same.
    for i in 0..16 {
        kernel.lock().unwrap().fire(format!("backend/{i}").as_bytes());
        client.write("data/a", "v").unwrap();
    }
    let expected: Vec<_> = (0..16).map(|i| pair(&format!("backend/{i}"), "t")).collect();
    assert_eq!(events(&mut client), expected);
    assert_eq!(client.oddities().stray_answers, 0);
}

#[test]
fn row_8_an_event_before_the_answer_to_its_watch_is_kept() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().event_first = true;
    client.watch("backend", "t").unwrap();
    assert_eq!(events(&mut client), [pair("backend", "t")]);
}

#[test]
fn row_9_a_doubled_watch_is_refused_by_the_client() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    let error = client.watch("backend", "t").unwrap_err();
    assert_eq!(error.refusal(), Some(&ErrorCode::Exist));
    client.watch("backend", "t2").unwrap();
    events(&mut client);
    kernel.lock().unwrap().fire(b"backend/x");
    client.receive().unwrap();
    assert_eq!(events(&mut client), [pair("backend/x", "t"), pair("backend/x", "t2")]);

    // No depth either, which the device would drop.
    let first = &kernel.lock().unwrap().writes[0];
    assert_eq!(&first[Header::LEN..], b"backend\0t\0");
}

#[test]
fn row_10_reset_watches_is_refused_and_not_sent() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    let error = client.reset_watches().unwrap_err();
    assert_eq!(error.refusal(), Some(&ErrorCode::NoSys));
    assert_eq!(kernel.lock().unwrap().writes.len(), 1);
    assert_eq!(client.watch("backend", "t").unwrap_err().refusal(), Some(&ErrorCode::Exist));
}

#[test]
fn row_11_a_message_split_over_reads_is_put_together() {
    for read_limit in 1..40 {
        let (mut client, kernel) = client();
        kernel.lock().unwrap().read_limit = read_limit;
        client.watch("backend", "t").unwrap();
        client.write("data/a", "a value").unwrap();
        assert_eq!(client.read("data/a").unwrap(), b"a value");
        kernel.lock().unwrap().fire(b"backend/vif");
        client.wait_event(None).unwrap();
        let event = client.wait_event(None).unwrap();
        let expected = WatchEvent { path: b"backend/vif", token: b"t" };
        assert_eq!(event, Some(Event::Watch(expected)), "{read_limit} bytes a read");
    }
}

#[test]
fn row_11_several_messages_in_one_read_are_all_taken() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    events(&mut client);
    let reads = {
        let mut kernel = kernel.lock().unwrap();
        (0..100).for_each(|i| kernel.fire(format!("backend/{i}").as_bytes()));
        kernel.reads
    };
    client.receive().unwrap();
    assert_eq!(kernel.lock().unwrap().reads, reads + 1);
    assert_eq!(events(&mut client).len(), 100);
}

#[test]
fn row_11_the_device_is_never_read_into_nothing() {
    let mut device = xs_client::Device::open("/dev/null").unwrap();
    assert!(device.read(&mut []).is_err());
}

#[test]
fn row_12_what_closing_ended_is_registered_again() {
    let (mut client, kernel) = client();
    for i in 0..20 {
        client.watch(format!("backend/{i}"), "t").unwrap();
    }
    client.reconnect().unwrap();
    assert_eq!(kernel.lock().unwrap().opened, 2);
    assert_eq!(kernel.lock().unwrap().watches.len(), 20);
    assert_eq!(events(&mut client), [pair("resync", "")]);
    client.unwatch("backend/3", "t").unwrap();
}

#[test]
fn row_12_a_watch_that_is_not_taken_back_fails_the_reconnection() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    kernel.lock().unwrap().refuse_watch = Some(28);
    assert_eq!(client.reconnect().unwrap_err().refusal(), Some(&ErrorCode::NoSpc));
    assert!(matches!(client.read("a"), Err(Error::Disconnected(_))));
    client.reconnect().unwrap();
    assert_eq!(kernel.lock().unwrap().watches, [pair("backend", "t")]);
}

#[test]
fn row_12_a_transaction_from_before_a_resume_is_run_again() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().store.conflicts = 1;
    let mut runs = 0;
    let result = client.transaction(|tx| {
        runs += 1;
        tx.write("data/a", runs.to_string())?;
        Ok(Outcome::Commit(runs))
    });
    assert_eq!(result.unwrap(), 2);
    assert_eq!(kernel.lock().unwrap().store.nodes[&b"data/a"[..]], b"2");
}

#[test]
fn row_13_a_request_is_not_written_over_the_one_before() {
    let (mut client, kernel) = client();
    let mut batch = Batch::new();
    for i in 1..10_u8 {
        batch.write(format!("data/{}", "x".repeat(usize::from(i))), [i]);
    }
    client.run(&mut batch).unwrap();
    for i in 1..10_u8 {
        let path = format!("data/{}", "x".repeat(usize::from(i)));
        assert_eq!(client.read(path).unwrap(), [i]);
    }
    assert_eq!(kernel.lock().unwrap().most_under_way, 1);
}
