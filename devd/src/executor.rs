//! What the store is asked and told for the dispatcher.

use std::fmt::Write;

use devd_core::{DeviceKey, Dispatcher, HotplugStatus, Observation, Time, Want, XenbusState};
use xs_client::{Batch, Client, Error, Outcome, Transaction};
use xs_proto::ErrorCode;

/// Looks at devices, many in one go, and changes their nodes.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    batch: Batch,
    /// The devices whose removal hook has run, which is to be said.
    detached: Vec<DeviceKey>,
    /// The looks that are asked for.
    looks: Vec<(DeviceKey, Want)>,
    /// A path that is being put together.
    path: String,
}

/// So many looks are carried out at once: more would keep the daemon from everything else.
const LOOKS_AT_ONCE: usize = 64;

impl Executor {
    /// Asks for a look at a device.
    pub(crate) fn look(&mut self, key: DeviceKey, want: Want) {
        self.looks.push((key, want));
    }

    /// Says, for a daemon that is started later, that the device's removal hook has run, before
    /// anything is looked at.
    pub(crate) fn mark_detached(&mut self, key: DeviceKey) {
        self.detached.push(key);
    }

    /// Carries out what was asked for, some of the looks if they are many, and tells the
    /// dispatcher. True if there was anything.
    ///
    /// # Errors
    ///
    /// The connection is lost. The dispatcher was told of every look.
    pub(crate) fn run(
        &mut self,
        client: &mut Client,
        dispatcher: &mut Dispatcher,
        now: Time,
    ) -> Result<bool, Error> {
        let count = self.looks.len().min(LOOKS_AT_ONCE);
        if count == 0 && self.detached.is_empty() {
            return Ok(false);
        }
        self.batch.clear();
        for key in &self.detached {
            self.batch.rm(format!("{key}/hotplug-status"));
        }
        for (key, want) in &self.looks[..count] {
            ask(&mut self.batch, &mut self.path, *key, *want);
        }
        let mut result = client.run(&mut self.batch);
        let mut answers = Answers { batch: &self.batch, next: 0 };
        for key in self.detached.drain(..) {
            // Without a connection that is said of all.
            if let (Ok(()), Err(code)) = (&result, answers.take(true)) {
                log::warn!(
                    "{key}: cannot remove hotplug-status: {code}; a daemon that is started before the \
                     directory is gone runs the removal hook again"
                );
            }
        }
        for (key, want) in self.looks.drain(..count) {
            match (&result, answers.observation(key, want)) {
                (Ok(()), Ok(mut seen)) => match frontend(client, key, want) {
                    Ok(exists) => {
                        seen.frontend = exists;
                        dispatcher.handle_observation(key, &seen, now);
                    }
                    Err(error) => {
                        log::warn!(
                            "{key}: cannot look at its frontend, will look again later: {error}"
                        );
                        dispatcher.handle_observation_refused(key, now);
                        if error.ends_connection() {
                            result = Err(error);
                        }
                    }
                },
                (Ok(()), Err(code)) => {
                    log::warn!(
                        "{key}: the store refuses a look at it, which is made again later: {code}"
                    );
                    dispatcher.handle_observation_refused(key, now);
                }
                (Err(_), _) => dispatcher.handle_observation_refused(key, now),
            }
        }
        result.map(|()| true)
    }

    /// The connection was lost: what was asked for will not be answered.
    pub(crate) fn give_up(&mut self, dispatcher: &mut Dispatcher, now: Time) {
        self.detached.clear();
        for (key, _) in self.looks.drain(..) {
            dispatcher.handle_observation_refused(key, now);
        }
    }
}

/// The nodes that a set of facts takes, in the order that [`Answers`] reads them in.
fn ask(batch: &mut Batch, path: &mut String, key: DeviceKey, want: Want) {
    path.clear();
    let _ = write!(path, "{key}/");
    let directory = path.len();
    let mut read = |node: &str| {
        path.truncate(directory);
        path.push_str(node);
        batch.read(&path);
    };
    // A device that is not wanted will not be again: if it is closed then, it is for good.
    if want.contains(Want::ONLINE) {
        read("online");
    }
    if want.contains(Want::STATE) {
        read("state");
    }
    if want.contains(Want::HOTPLUG) {
        read("hotplug-status");
    }
    if want.contains(Want::HOOK) {
        read("script");
        if is_vif(key) {
            read("type");
            read("gatewaydev");
        }
    }
}

fn is_vif(key: DeviceKey) -> bool {
    key.kind == devd_core::Kind::Vif
}

struct Answers<'a> {
    batch: &'a Batch,
    next: usize,
}

impl<'a> Answers<'a> {
    fn observation(
        &mut self,
        key: DeviceKey,
        want: Want,
    ) -> Result<Observation<'a>, &'a ErrorCode> {
        let vif = want.contains(Want::HOOK) && is_vif(key);
        // All are taken before any is judged, so that the next device's are found.
        let online = self.take(want.contains(Want::ONLINE));
        let state = self.take(want.contains(Want::STATE));
        let hotplug = self.take(want.contains(Want::HOTPLUG));
        let script = self.take(want.contains(Want::HOOK));
        let vif_type = self.take(vif);
        let gatewaydev = self.take(vif);
        Ok(Observation {
            want,
            state: state?.map(XenbusState::parse),
            online: online? == Some(b"1"),
            hotplug: HotplugStatus::parse(hotplug?),
            script: script?,
            vif_type: vif_type?,
            gatewaydev: gatewaydev?,
            frontend: false,
        })
    }

    /// The next answer, if there is one. A node that is missing is one; so is one that may not
    /// be read because its directory is gone.
    fn take(&mut self, asked: bool) -> Result<Option<&'a [u8]>, &'a ErrorCode> {
        if !asked {
            return Ok(None);
        }
        self.next += 1;
        match self.batch.reply(self.next - 1) {
            Ok(value) => Ok(Some(value)),
            Err(ErrorCode::NoEnt) => Ok(None),
            Err(code) => Err(code),
        }
    }
}

/// Does the frontend's directory exist, if that is asked? When the guest is gone, its home is too, and the store
/// then says `EACCES` to whoever may not list all guests.
fn frontend(client: &mut Client, key: DeviceKey, want: Want) -> Result<bool, Error> {
    if !want.contains(Want::FRONTEND) {
        return Ok(false);
    }
    let frontend = match client.read(format!("{key}/frontend")) {
        Ok(frontend) => frontend,
        Err(error) if error.is_missing() => return Ok(false),
        Err(error) => return Err(error),
    };
    match client.read(&frontend) {
        Ok(_) => Ok(true),
        // Nor does what is no path of a node.
        Err(
            Error::Refused(ErrorCode::NoEnt | ErrorCode::Acces | ErrorCode::Inval) | Error::Path(_),
        ) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes an earlier failure back before the next try. False if the store refused.
pub(crate) fn reset(client: &mut Client, key: DeviceKey) -> Result<bool, Error> {
    tell(client, key, "forget the earlier failure", |_| true, &mut |transaction, directory| {
        // Not removed: netback connects without its hook if the node is missing.
        transaction.write(format!("{directory}/hotplug-status"), "")?;
        missing_is_fine(transaction.rm(format!("{directory}/hotplug-error")))
    })
}

/// Says for a hook that its work is done. False if the store refused.
pub(crate) fn mark_connected(client: &mut Client, key: DeviceKey) -> Result<bool, Error> {
    tell(client, key, "mark it connected", |_| true, &mut |transaction, directory| {
        transaction.write(format!("{directory}/hotplug-status"), "connected")
    })
}

/// Removes the reason of an earlier failure from a device that is served now. False if the store
/// refused.
pub(crate) fn remove_error(client: &mut Client, key: DeviceKey) -> Result<bool, Error> {
    tell(client, key, "remove its hotplug-error", |_| true, &mut |transaction, directory| {
        missing_is_fine(transaction.rm(format!("{directory}/hotplug-error")))
    })
}

/// Who may have written `hotplug-error` before the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorNode {
    /// The device's hook, whose reason is better than the daemon's.
    Hook,
    /// Only the daemon: what stands there is the reason of an earlier failure.
    Daemon,
}

/// Writes why the device is not served, unless its hook has written that. The log says that, and
/// behind it when the device is tried again. False if the store refused.
pub(crate) fn fail(
    client: &mut Client,
    key: DeviceKey,
    reason: &str,
    writer: ErrorNode,
    next_try: &str,
) -> Result<bool, Error> {
    let mut said = reason.to_owned();
    let marked =
        tell(client, key, "report its failure", |_| true, &mut |transaction, directory| {
            let error = format!("{directory}/hotplug-error");
            let standing = match transaction.read(&error) {
                Ok(_) if writer == ErrorNode::Daemon => Vec::new(),
                Ok(text) => text,
                Err(refused) if refused.ends_connection() => return Err(refused),
                Err(refused) => {
                    if !refused.is_missing() {
                        log::warn!("{key}: cannot read hotplug-error: {refused}");
                    }
                    Vec::new()
                }
            };
            if !standing.is_empty() {
                said = String::from_utf8_lossy(&standing).into_owned();
            } else {
                match transaction.write(&error, reason) {
                    // The quota may have no room for another node; the status is there already.
                    Err(error) if !error.ends_connection() => {
                        log::warn!("{key}: cannot write hotplug-error: {error}");
                    }
                    result => result?,
                }
            }
            transaction.write(format!("{directory}/hotplug-status"), "error")
        });
    if said == reason {
        log::error!("{key}: not served: {reason}{next_try}");
    } else {
        log::error!("{key}: not served: {reason}: {}{next_try}", said.escape_debug());
    }
    marked
}

/// Closes a device that nobody else is there to close.
pub(crate) fn close(client: &mut Client, key: DeviceKey) -> Result<(), Error> {
    tell(client, key, "close it", is_closing, &mut write_closed).map(drop)
}

/// Lets the next QEMU take up a device that the last one had not connected; closes one that is
/// let go of by now, which the next QEMU would leave as it is.
pub(crate) fn rewind(client: &mut Client, key: DeviceKey) -> Result<(), Error> {
    let taken_up = |state| state == XenbusState::InitWait;
    let rewound = change(client, key, taken_up, &mut |transaction, directory| {
        transaction.write(format!("{directory}/hotplug-status"), "")?;
        transaction.write(format!("{directory}/state"), "1")
    })?;
    if !rewound {
        change(client, key, is_closing, &mut write_closed)?;
    }
    Ok(())
}

fn is_closing(state: XenbusState) -> bool {
    state == XenbusState::Closing
}

fn write_closed(transaction: &mut Transaction<'_>, directory: &str) -> Result<(), Error> {
    transaction.write(format!("{directory}/state"), "6")
}

/// What is changed in a device's directory.
type Change<'a> = dyn FnMut(&mut Transaction<'_>, &str) -> Result<(), Error> + 'a;

/// Changes a device that is there; that it is not is no failure. False if the store refused,
/// which is logged.
fn tell(
    client: &mut Client,
    key: DeviceKey,
    what: &str,
    when: fn(XenbusState) -> bool,
    body: &mut Change<'_>,
) -> Result<bool, Error> {
    match change(client, key, when, body) {
        Err(error) if error.ends_connection() => Err(error),
        Err(error) => {
            log::error!("{key}: cannot {what}: {error}");
            Ok(false)
        }
        Ok(_) => Ok(true),
    }
}

/// In one transaction: changes the device's directory if its `state` is so. False if it is
/// not. Without the look at `state`, writing would bring a removed directory back.
fn change(
    client: &mut Client,
    key: DeviceKey,
    when: fn(XenbusState) -> bool,
    body: &mut Change<'_>,
) -> Result<bool, Error> {
    let directory = key.to_string();
    client.transaction(|transaction| match transaction.read(format!("{directory}/state")) {
        Ok(value) if when(XenbusState::parse(&value)) => {
            body(transaction, &directory)?;
            Ok(Outcome::Commit(true))
        }
        Ok(_) => Ok(Outcome::Abort(false)),
        Err(error) if error.is_missing() => Ok(Outcome::Abort(false)),
        Err(error) => Err(error),
    })
}

fn missing_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::Kind;
    use xs_client::embedded::Store;

    #[test]
    fn what_a_dead_qemu_has_taken_up_is_made_new_or_closed() {
        let key = DeviceKey { kind: Kind::Qdisk, domid: 3, devid: 51712 };
        let nodes = |state, status| [("state", state), ("hotplug-status", status)];
        for (before, after) in [
            (nodes("2", "connected"), nodes("1", "")),
            (nodes("5", "connected"), nodes("6", "connected")),
            (nodes("4", "error"), nodes("4", "error")),
            (nodes("6", "connected"), nodes("6", "connected")),
        ] {
            let store = Store::new();
            let mut client = Client::new(store.connect(0).unwrap());
            for (node, value) in before {
                client.write(format!("{key}/{node}"), value).unwrap();
            }
            rewind(&mut client, key).unwrap();
            for (node, value) in after {
                assert_eq!(client.read(format!("{key}/{node}")).unwrap(), value.as_bytes());
            }
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_not_brought_back() {
        let key = DeviceKey { kind: Kind::Qdisk, domid: 3, devid: 51712 };
        let store = Store::new();
        let mut client = Client::new(store.connect(0).unwrap());
        rewind(&mut client, key).unwrap();
        close(&mut client, key).unwrap();
        mark_connected(&mut client, key).unwrap();
        fail(&mut client, key, "reason", ErrorNode::Hook, "").unwrap();
        assert!(!client.exists(key.to_string()).unwrap());
    }
}
