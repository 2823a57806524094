//! What the scripts of the tests call: this program again, since a machine with nothing but
//! Rust has no `xenstore-write` and no QEMU. They are no tests, but only those can be called in
//! a program that is made of tests.

use std::collections::HashSet;
use std::env;
use std::thread;
use std::time::Duration;

use xs_client::{Address, Client, Error, Outcome};

use super::kernel::{commit, value};

/// The variable that says what a hook wants done: see [`hook_call`].
pub const CALL: &str = "DEVD_TEST_CALL";

fn client() -> Client {
    Client::open(Address::find(None).unwrap()).unwrap()
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// For hooks: `connect` says in the store that the device is served, as Xen's scripts do;
/// `write NODE VALUE…` and `rm NODE` change a node of the device, or of the domain where there
/// is no device.
#[test]
#[ignore = "not a test: the hooks of the tests call it"]
fn hook_call() {
    let call = variable(CALL);
    let directory = variable("XENBUS_PATH");
    let node = |name: &str| format!("{directory}/{name}").trim_start_matches('/').to_owned();
    match *call.splitn(3, ' ').collect::<Vec<_>>() {
        ["connect"] => {
            let mut client = client();
            if variable("XENBUS_TYPE") != "vif" {
                client.write(node("physical-device"), "7:0").unwrap();
            }
            client.write(node("hotplug-status"), "connected").unwrap();
        }
        ["write", name, value] => client().write(node(name), value).unwrap(),
        ["rm", name] => client().rm(node(name)).unwrap(),
        _ => assert!(call.is_empty(), "{call}"),
    }
}

/// A QEMU for one guest: says that it runs, takes up devices in state 1 and no others, connects
/// them when their guest is there, and closes them when they are to close. SIGHUP ends it, and so
/// does the loss of the store.
#[test]
#[ignore = "not a test: the QEMU of the tests calls it"]
fn qemu() {
    let words: Vec<String> = env::args().collect();
    let Some(at) = words.iter().position(|word| word == "-xen-domid") else { return };
    let domid = &words[at + 1];
    let mut client = client();
    client.write(format!("device-model/{domid}/backends/qdisk"), "").unwrap();
    client.write(format!("device-model/{domid}/state"), "running").unwrap();
    let mut mine = HashSet::new();
    while client.is_connected() {
        // A list or a step that the store refuses is tried again.
        if let Ok(there) = devices(&mut client, domid) {
            mine.retain(|directory| there.contains(directory));
            for directory in there {
                match serve(&mut client, mine.contains(&directory), &directory) {
                    Ok(true) => drop(mine.insert(directory)),
                    Ok(false) => drop(mine.remove(&directory)),
                    Err(_) => {}
                }
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The directories of the guest's devices.
fn devices(client: &mut Client, domid: &str) -> Result<Vec<String>, Error> {
    let mut there = Vec::new();
    for kind in ["qdisk", "9pfs"] {
        let directory = format!("backend/{kind}/{domid}");
        match client.directory(&directory) {
            Ok(names) => {
                let path = |name: Vec<u8>| format!("{directory}/{}", name.escape_ascii());
                there.extend(names.into_iter().map(path));
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}

/// Takes a device one state further, if its `state` still calls for that. True if the device is
/// this QEMU's afterwards.
fn serve(client: &mut Client, is_mine: bool, directory: &str) -> Result<bool, Error> {
    let node = |name: &str| format!("{directory}/{name}");
    let state = client.read(node("state"))?;
    let steps = match &*state {
        // A device that was mine is another of its name now.
        b"1" => true,
        b"2" | b"5" => is_mine,
        _ => false,
    };
    if !steps {
        return Ok(is_mine);
    }
    // The toolstack may write `state` at any time.
    commit(client, |transaction| {
        if transaction.read(node("state"))? != state {
            return Ok(Outcome::Abort(is_mine));
        }
        match &*state {
            b"1" => {
                transaction.write(node("feature-discard"), "1")?;
                transaction.write(node("hotplug-status"), "connected")?;
                transaction.write(node("state"), "2")?;
            }
            b"2" => {
                let frontend = value(transaction, &node("frontend"))?.unwrap_or_default();
                let theirs = value(transaction, &format!("{frontend}/state"))?;
                if theirs.as_deref() != Some("3") {
                    return Ok(Outcome::Abort(true));
                }
                transaction.write(node("state"), "4")?;
            }
            _ => transaction.write(node("state"), "6")?,
        }
        Ok(Outcome::Commit(state != b"5"))
    })
}
