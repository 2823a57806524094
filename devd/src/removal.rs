//! Removing the directories of devices that were let go.

use devd_core::{DeviceKey, Dispatcher, Removal, State, Time};
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
    let mut tell = |key: &DeviceKey, removal| dispatcher.handle_removal(*key, removal, now);
    match remove(client, batch, keys) {
        Ok(unwanted) => {
            for (key, unwanted) in keys.iter().zip(unwanted) {
                tell(key, if unwanted { Removal::Removed } else { Removal::Changed });
            }
            Ok(())
        }
        Err(error) if error.ends_connection() => {
            keys.iter().for_each(|key| tell(key, Removal::Refused));
            Err(error)
        }
        Err(error) if let [key] = keys => {
            log::error!("{key}: cannot remove the directory: {error}");
            tell(key, Removal::Refused);
            Ok(())
        }
        // What is in the way of one is not to be in the way of all.
        Err(_) => {
            let mut result = Ok(());
            for key in keys.chunks(1) {
                result = result.and(remove_together(client, batch, key, dispatcher, now));
            }
            result
        }
    }
}

/// Removes those of the directories that still are those of closed devices: for each, was it
/// one? In a transaction: the toolstack may put a new device in the place of any at any moment.
fn remove(client: &mut Client, batch: &mut Batch, keys: &[DeviceKey]) -> Result<Vec<bool>, Error> {
    client.transaction(|transaction| {
        batch.clear();
        for key in keys {
            batch.read(format!("{key}/online"));
        }
        transaction.run(batch)?;
        let mut unwanted = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let online = there(batch.reply(index).map_err(refused))?;
            unwanted.push(is_unwanted(transaction, *key, online)?);
        }
        if !unwanted.contains(&true) {
            return Ok(Outcome::Abort(unwanted));
        }
        batch.clear();
        for (key, _) in keys.iter().zip(&unwanted).filter(|(_, unwanted)| **unwanted) {
            batch.rm(key.to_string());
        }
        transaction.run(batch)?;
        (0..batch.len()).try_for_each(|index| batch.reply(index).map(drop).map_err(refused))?;
        Ok(Outcome::Commit(unwanted))
    })
}

/// Is the device closed for good? What is closed and not wanted stays so: `online` tells it from
/// any other. Without that node, or with one that says it is wanted, more has to be asked.
fn is_unwanted(
    transaction: &mut Transaction<'_>,
    key: DeviceKey,
    online: Option<&[u8]>,
) -> Result<bool, Error> {
    if online.is_some_and(|online| online != b"1") {
        return Ok(true);
    }
    let state = there(transaction.read(format!("{key}/state")))?;
    let closed = state.is_some_and(|state| State::parse(&state) == State::Closed);
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
