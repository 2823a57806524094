//! Removing the directories of devices that were let go.

use devd_core::{DeviceKey, Dispatcher, Removal, Time, XenbusState};
use xs_client::{Batch, Client, Error, Outcome, Transaction};
use xs_proto::ErrorCode;

/// So many go in one transaction: xenstored lets it touch a thousand nodes, and a device has two
/// dozen.
const AT_ONCE: usize = 24;

/// Removes devices, many in one go: a guest that ends lets all of its go at the same time.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    due: Vec<DeviceKey>,
    batch: Batch,
}

impl Removals {
    /// Asks for the removal of a device's directory.
    pub(crate) fn add(&mut self, key: DeviceKey) {
        self.due.push(key);
    }

    /// Carries out the removals that were asked for, some of them if they are many, and tells
    /// the dispatcher. True if there was one.
    ///
    /// # Errors
    ///
    /// The connection is lost. The dispatcher was told of every removal that was begun.
    pub(crate) fn run(
        &mut self,
        client: &mut Client,
        dispatcher: &mut Dispatcher,
        now: Time,
    ) -> Result<bool, Error> {
        let count = self.due.len().min(AT_ONCE);
        let result = remove_together(client, &mut self.batch, &self.due[..count], dispatcher, now);
        self.due.drain(..count);
        result.map(|()| count > 0)
    }

    /// The connection was lost: what was asked for is not done.
    pub(crate) fn give_up(&mut self, dispatcher: &mut Dispatcher, now: Time) {
        for key in self.due.drain(..) {
            dispatcher.handle_removal(key, Removal::Refused, now);
        }
    }
}

fn remove_together(
    client: &mut Client,
    batch: &mut Batch,
    keys: &[DeviceKey],
    dispatcher: &mut Dispatcher,
    now: Time,
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut result = match remove_all(client, batch, keys) {
        Ok(true) => {
            keys.iter().for_each(|key| dispatcher.handle_removal(*key, Removal::Removed, now));
            return Ok(());
        }
        Ok(false) => Ok(()),
        Err(error) if error.ends_connection() => Err(error),
        Err(error) if keys.len() == 1 => {
            log::error!("{}: cannot remove the directory: {error}", keys[0]);
            dispatcher.handle_removal(keys[0], Removal::Refused, now);
            return Ok(());
        }
        // What is in the way of one is not to be in the way of all.
        Err(error) => {
            log::warn!(
                "cannot remove {} directories at once: {error}; one by one then",
                keys.len()
            );
            Ok(())
        }
    };
    for key in keys {
        let removal = match &result {
            Ok(()) => remove(client, *key),
            Err(_) => Ok(Removal::Refused),
        };
        let removal = removal.unwrap_or_else(|error| {
            if error.ends_connection() {
                result = Err(error);
            } else {
                log::error!("{key}: cannot remove the directory: {error}");
            }
            Removal::Refused
        });
        dispatcher.handle_removal(*key, removal, now);
    }
    result
}

/// Removes the directories, if `online` says of each that its device is not wanted. What is
/// closed and not wanted stays so: that tells it from any other. In a transaction: the toolstack
/// may put a new device in the place of any at any moment. False if nothing was removed.
fn remove_all(client: &mut Client, batch: &mut Batch, keys: &[DeviceKey]) -> Result<bool, Error> {
    batch.clear();
    for key in keys {
        batch.read(format!("{key}/online"));
    }
    for key in keys {
        batch.rm(key.to_string());
    }
    client.transaction(|transaction| {
        transaction.run(batch)?;
        for index in 0..keys.len() {
            let online = there(batch.reply(index).map_err(refused))?;
            if online.is_none_or(|online| online == b"1") {
                return Ok(Outcome::Abort(false));
            }
        }
        for index in keys.len()..batch.len() {
            batch.reply(index).map_err(refused)?;
        }
        Ok(Outcome::Commit(true))
    })
}

/// Removes the directory, if its device is closed for good by all that the store says.
fn remove(client: &mut Client, key: DeviceKey) -> Result<Removal, Error> {
    client.transaction(|transaction| {
        if !is_closed_for_good(transaction, key)? {
            return Ok(Outcome::Abort(Removal::Changed));
        }
        transaction.rm(key.to_string())?;
        Ok(Outcome::Commit(Removal::Removed))
    })
}

fn is_closed_for_good(transaction: &mut Transaction<'_>, key: DeviceKey) -> Result<bool, Error> {
    let online = there(transaction.read(format!("{key}/online")))?;
    if online.as_ref().is_some_and(|online| online != b"1") {
        return Ok(true);
    }
    let state = there(transaction.read(format!("{key}/state")))?;
    let closed = state.is_some_and(|state| XenbusState::parse(&state) == XenbusState::Closed);
    Ok(closed && (online.is_none() || !has_frontend(transaction, key)?))
}

/// Does the device's frontend exist?
fn has_frontend(transaction: &mut Transaction<'_>, key: DeviceKey) -> Result<bool, Error> {
    let frontend = there(transaction.read(format!("{key}/frontend")))?;
    let Some(frontend) = frontend else { return Ok(false) };
    match transaction.read(&frontend) {
        Ok(_) => Ok(true),
        Err(error) if error.ends_connection() => Err(error),
        // That of a guest that is gone may not even be asked for.
        Err(_) => Ok(false),
    }
}

/// What was read, if it is there.
fn there<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused(code: &ErrorCode) -> Error {
    Error::Refused(code.clone())
}
