//! A whole backend of a made-up kind of device: for each `backend/echo/N/M` that the toolstack
//! makes, it goes through the states with the frontend, and copies the frontend's `question` to
//! `answer` while both are connected.

use std::error::Error;

use xs_client::{Address, Client, Event, Outcome, Transaction};

/// `enum xenbus_state` in `io/xenbus.h`, as far as a simple backend needs it.
const INITIALISING: &[u8] = b"1";
const INIT_WAIT: &[u8] = b"2";
const INITIALISED: &[u8] = b"3";
const CONNECTED: &[u8] = b"4";
const CLOSING: &[u8] = b"5";
const CLOSED: &[u8] = b"6";

fn main() -> Result<(), Box<dyn Error>> {
    let mut client = Client::open(Address::find(None)?)?;
    client.watch("backend/echo", "ours")?;
    loop {
        step(&mut client)?;
    }
}

/// Waits for an event and serves the devices that it may be about.
pub(crate) fn step(client: &mut Client) -> Result<(), xs_client::Error> {
    // An event only says where to look; the nodes say what is to be done. So every device is
    // looked at: a real backend would look at the one in the event's path.
    match client.wait_event(None)? {
        Some(Event::Watch(_) | Event::Resync) => {}
        None => return Ok(()),
    }
    for directory in devices(client)? {
        if let Some(frontend) = client.transaction(|tx| serve(tx, &directory))? {
            match client.watch(format!("{frontend}/state"), "theirs") {
                Err(error) if error.refusal().is_none() => return Err(error),
                Ok(()) | Err(_) => {} // Watched already.
            }
        }
    }
    Ok(())
}

/// The directories of all devices.
fn devices(client: &mut Client) -> Result<Vec<String>, xs_client::Error> {
    let mut found = Vec::new();
    for domid in children(client, "backend/echo")? {
        for devid in children(client, &format!("backend/echo/{domid}"))? {
            found.push(format!("backend/echo/{domid}/{devid}"));
        }
    }
    Ok(found)
}

fn children(client: &mut Client, path: &str) -> Result<Vec<String>, xs_client::Error> {
    match client.directory(path) {
        Ok(names) => Ok(names.iter().map(|name| String::from_utf8_lossy(name).into()).collect()),
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Takes one step with a device, as both states call for. Returns the frontend's directory.
fn serve(
    tx: &mut Transaction<'_>,
    directory: &str,
) -> Result<Outcome<Option<String>>, xs_client::Error> {
    // Without a state there is no device: a write would bring a removed directory back.
    let Some(ours) = value(tx, &format!("{directory}/state"))? else {
        return Ok(Outcome::Abort(None));
    };
    let Some(frontend) = value(tx, &format!("{directory}/frontend"))? else {
        return Ok(Outcome::Abort(None));
    };
    let frontend = String::from_utf8_lossy(&frontend).into_owned();
    let theirs = value(tx, &format!("{frontend}/state"))?;
    let next = match (&ours[..], theirs.as_deref().unwrap_or(CLOSED)) {
        (INITIALISING, _) => INIT_WAIT,
        (INIT_WAIT, INITIALISED | CONNECTED) => {
            let question = value(tx, &format!("{frontend}/question"))?.unwrap_or_default();
            tx.write(format!("{directory}/answer"), question)?;
            CONNECTED
        }
        (INIT_WAIT | CONNECTED, CLOSING) => CLOSING,
        (CONNECTED | CLOSING, CLOSED) => CLOSED,
        _ => return Ok(Outcome::Abort(Some(frontend))),
    };
    tx.write(format!("{directory}/state"), next)?;
    Ok(Outcome::Commit(Some(frontend)))
}

fn value(tx: &mut Transaction<'_>, path: &str) -> Result<Option<Vec<u8>>, xs_client::Error> {
    match tx.read(path) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
