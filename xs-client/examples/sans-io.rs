//! [`Connection`] without [`Client`](xs_client::Client): the caller moves the bytes, here over a
//! plain unix stream, so that the protocol fits into any event loop.

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use xs_client::{Arrival, Connection, Event, Quirks};
use xs_proto::{Reply, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let socket = env::args().nth(1).unwrap_or_else(|| "/run/xenstored/socket".to_owned());
    let (values, events) = run(UnixStream::connect(socket)?)?;
    println!("{values:?}; {events} events");
    Ok(())
}

type Values = Vec<Vec<u8>>;

/// Writes two nodes and reads them, with all requests under way at once; returns the values in the
/// order of the requests, and how many events the watch has had.
pub(crate) fn run(mut stream: UnixStream) -> Result<(Values, usize), Box<dyn Error>> {
    let mut connection = Connection::new(Quirks::SOCKET);
    let requests = [
        Request::Watch { path: b"/tool/demo", token: b"demo", depth: None },
        Request::Write { path: b"/tool/demo/a", value: b"1" },
        Request::Write { path: b"/tool/demo/b", value: b"2" },
        Request::Read { path: b"/tool/demo/a" },
        Request::Read { path: b"/tool/demo/b" },
    ];
    for (ticket, request) in requests.iter().enumerate() {
        connection.queue(ticket, 0, request)?;
    }
    let mut values = vec![Vec::new(); requests.len()];
    while connection.outstanding() > 0 {
        // Write as much as the stream takes.
        while !connection.transmit().is_empty() {
            let written = stream.write(connection.transmit())?;
            connection.transmitted(written);
        }
        // Read as much as there is room for.
        let len = stream.read(connection.space())?;
        if len == 0 {
            return Err("the store closed the connection".into());
        }
        connection.filled(len);
        while let Some(arrival) = connection.next_arrival()? {
            if let Arrival::Answer(answer) = arrival {
                match answer.reply? {
                    Reply::Read(value) => values[answer.ticket] = value.to_vec(),
                    Reply::Error(code) => return Err(code.to_string().into()),
                    _ => {}
                }
            }
        }
    }
    let mut events = 0;
    while let Some(event) = connection.next_event() {
        events += usize::from(matches!(event, Event::Watch(_)));
    }
    Ok((values.split_off(3), events))
}
