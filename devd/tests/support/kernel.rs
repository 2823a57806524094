//! The backends in the driver domain's kernel: netback, blkback and tapback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use xs_client::embedded::Store;
use xs_client::{Client, Error, Event, Outcome, Transaction};
use xs_proto::ErrorCode;

use super::DOMID;

/// Takes devices to state 2, to 4 when their hook has run and their guest is there, and from 5
/// to 6, until it is dropped.
#[derive(Debug)]
pub struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    pub fn boot(store: &Store) -> Self {
        let mut client = Client::new(store.connect(DOMID).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            client.watch("backend", "kernel").unwrap();
            while !stopped.load(Ordering::SeqCst) {
                let path = match client.wait_event(Some(Duration::from_millis(50))).unwrap() {
                    Some(Event::Watch(event)) => String::from_utf8(event.path.to_vec()).unwrap(),
                    // Events were lost: look at every device.
                    Some(Event::Resync) => "backend".to_owned(),
                    None => continue,
                };
                match *path.split('/').collect::<Vec<_>>() {
                    ["backend"] => probe_all(&mut client),
                    ["backend", kind, guest, devid, ..] => {
                        serve(&mut client, kind, &format!("backend/{kind}/{guest}/{devid}"));
                    }
                    _ => {}
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Everything that was there before the kernel was.
fn probe_all(client: &mut Client) {
    for kind in names(client, "backend") {
        for guest in names(client, &format!("backend/{kind}")) {
            for devid in names(client, &format!("backend/{kind}/{guest}")) {
                serve(client, &kind, &format!("backend/{kind}/{guest}/{devid}"));
            }
        }
    }
}

fn names(client: &mut Client, path: &str) -> Vec<String> {
    let names = client.directory(path).unwrap_or_default();
    names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}

/// Takes a device one state further, in a transaction: a directory that goes stays gone, and a
/// `state` that somebody else has changed meanwhile is not overwritten.
fn serve(client: &mut Client, kind: &str, directory: &str) {
    let network = match kind {
        "vif" => true,
        "vbd" | "vbd3" => false,
        _ => return,
    };
    let stepped = commit(client, |transaction| {
        let node = |name: &str| format!("{directory}/{name}");
        match value(transaction, &node("state"))?.as_deref() {
            Some("1") => {
                transaction.write(node("feature-split-event-channels"), "1")?;
                transaction.write(node("state"), "2")?;
            }
            Some("2") => {
                let hooked = if network {
                    value(transaction, &node("hotplug-status"))?.as_deref() == Some("connected")
                } else {
                    value(transaction, &node("physical-device"))?.is_some()
                };
                let frontend = value(transaction, &node("frontend"))?.unwrap_or_default();
                let frontend = value(transaction, &format!("{frontend}/state"))?;
                if !hooked || frontend.as_deref() != Some("3") {
                    return Ok(Outcome::Abort(()));
                }
                transaction.write(node("state"), "4")?;
            }
            Some("5") => {
                if network {
                    transaction.rm(node("hotplug-status"))?;
                }
                transaction.write(node("state"), "6")?;
            }
            _ => return Ok(Outcome::Abort(())),
        }
        Ok(Outcome::Commit(()))
    });
    match stepped {
        Err(error) if error.ends_connection() => panic!("the kernel has lost the store: {error}"),
        _ => {}
    }
}

/// Runs a transaction until nobody else comes in between, however long that takes.
pub(super) fn commit<T>(
    client: &mut Client,
    mut body: impl FnMut(&mut Transaction<'_>) -> Result<Outcome<T>, Error>,
) -> Result<T, Error> {
    loop {
        match client.transaction(&mut body) {
            Err(error) if error.refusal() == Some(&ErrorCode::Again) => {}
            result => return result,
        }
    }
}

/// The value of a node, if there is one.
pub(super) fn value(
    transaction: &mut Transaction<'_>,
    path: &str,
) -> Result<Option<String>, Error> {
    match transaction.read(path) {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.ends_connection() => Err(error),
        Err(_) => Ok(None),
    }
}
