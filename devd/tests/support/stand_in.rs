//! What the scripts of the tests call: this program again, since a machine with nothing but
//! Rust has no `xenstore-write` and no QEMU. They are no tests, but only those can be called in
//! a program that is made of tests.

use std::collections::HashSet;
use std::env;
use std::thread;
use std::time::Duration;

use xs_client::{Address, Client};

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
/// them when their guest is there, and closes them when they are to close. SIGHUP ends it.
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
    loop {
        for kind in ["qdisk", "9pfs"] {
            let directory = format!("backend/{kind}/{domid}");
            for name in client.directory(&directory).unwrap_or_default() {
                serve(&mut client, &mut mine, format!("{directory}/{}", name.escape_ascii()));
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn serve(client: &mut Client, mine: &mut HashSet<String>, directory: String) {
    let node = |name: &str| format!("{directory}/{name}");
    let state = client.read(node("state")).unwrap_or_default();
    match (&*state, mine.contains(&directory)) {
        // One that it had taken up before is another of that name now.
        (b"1", _) => {
            client.write(node("feature-discard"), "1").unwrap();
            client.write(node("hotplug-status"), "connected").unwrap();
            client.write(node("state"), "2").unwrap();
            mine.insert(directory);
        }
        (b"2", true) => {
            let frontend = client.read(node("frontend")).unwrap_or_default();
            let theirs = client.read([&frontend[..], b"/state"].concat()).unwrap_or_default();
            if theirs == b"3" {
                client.write(node("state"), "4").unwrap();
            }
        }
        (b"5", true) => {
            client.write(node("state"), "6").unwrap();
            mine.remove(&directory);
        }
        _ => {}
    }
}
