//! Prints what happens below paths until it is ended: `cargo run --example xs-watch -- backend`.
//! A lost connection is opened again.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use xs_client::{Address, Client, Event};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let mut client = Client::open(Address::find(None)?)?;
    for path in &paths {
        client.watch(path, "xs-watch")?;
    }
    loop {
        print_event(&mut client, &mut io::stdout().lock())?;
    }
}

/// Waits for the next event and prints it.
pub(crate) fn print_event(client: &mut Client, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    match client.wait_event(None) {
        Ok(Some(Event::Watch(event))) => writeln!(out, "{}", event.path.escape_ascii())?,
        Ok(Some(Event::Resync)) => writeln!(out, "events were lost: look at everything")?,
        Ok(None) => {}
        Err(error) if error.ends_connection() => {
            writeln!(out, "{error}; connecting again")?;
            while let Err(error) = client.reconnect() {
                if !error.ends_connection() {
                    return Err(error.into());
                }
                sleep(Duration::from_secs(1));
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
