//! Several operations as one.

use std::time::Duration;

use xs_proto::{ErrorCode, Permission, Reply, Request};

use crate::{Batch, Client, Error, operations};

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Keep what was done in it. It is all done at once, or not at all.
    Commit(T),
    /// Forget what was done in it.
    Abort(T),
}

/// A view of the store that others' changes do not reach, and changes that others do not see
/// before they are committed. [`Client::transaction`] makes one.
///
/// Its operations are the client's of the same names.
pub struct Transaction<'c> {
    client: &'c mut Client,
    id: u32,
}

impl Transaction<'_> {
    /// The value of a node.
    ///
    /// # Errors
    ///
    /// As [`Client::read`].
    pub fn read(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        operations::read(self.client, self.id, path.as_ref())
    }

    /// Is the node there?
    ///
    /// # Errors
    ///
    /// As [`Client::exists`].
    pub fn exists(&mut self, path: impl AsRef<[u8]>) -> Result<bool, Error> {
        operations::exists(self.client, self.id, path.as_ref())
    }

    /// The names of a node's children.
    ///
    /// # Errors
    ///
    /// As [`Client::directory`].
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Error> {
        operations::directory(self.client, self.id, path.as_ref())
    }

    /// Sets the value of a node.
    ///
    /// # Errors
    ///
    /// As [`Client::write`].
    pub fn write(&mut self, path: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        operations::write(self.client, self.id, path.as_ref(), value.as_ref())
    }

    /// Makes a node.
    ///
    /// # Errors
    ///
    /// As [`Client::mkdir`].
    pub fn mkdir(&mut self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        operations::mkdir(self.client, self.id, path.as_ref())
    }

    /// Removes a node and all below it.
    ///
    /// # Errors
    ///
    /// As [`Client::rm`].
    pub fn rm(&mut self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        operations::rm(self.client, self.id, path.as_ref())
    }

    /// The permissions of a node.
    ///
    /// # Errors
    ///
    /// As [`Client::permissions`].
    pub fn permissions(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<Permission>, Error> {
        operations::permissions(self.client, self.id, path.as_ref())
    }

    /// Sets the permissions of a node.
    ///
    /// # Errors
    ///
    /// As [`Client::set_permissions`].
    pub fn set_permissions(
        &mut self,
        path: impl AsRef<[u8]>,
        permissions: &[Permission],
    ) -> Result<(), Error> {
        operations::set_permissions(self.client, self.id, path.as_ref(), permissions)
    }

    /// Sends all requests of the batch.
    ///
    /// # Errors
    ///
    /// As [`Client::run`].
    pub fn run(&mut self, batch: &mut Batch) -> Result<(), Error> {
        self.client.run_in(self.id, batch)
    }

    fn end(&mut self, commit: bool) -> Result<(), Error> {
        let request = Request::TransactionEnd { commit };
        self.client.ask(self.id, &request, operations::done)
    }
}

type Body<'b> = dyn FnMut(&mut Transaction<'_>) -> Result<Outcome<()>, Error> + 'b;

impl Client {
    /// How often a transaction is tried at most.
    pub const TRANSACTION_TRIES: u32 = 16;

    /// Runs `body` in a transaction and commits it; runs it again, a little later each time,
    /// while the store says that somebody else came in between (`EAGAIN`).
    ///
    /// What `body` did outside of the transaction is not undone by a further try. If it fails,
    /// or says [`Outcome::Abort`], the transaction is dropped.
    ///
    /// # Errors
    ///
    /// Those of `body`, and those of its operations. [`Error::Refused`] with `EAGAIN` after
    /// [`TRANSACTION_TRIES`](Self::TRANSACTION_TRIES) tries, within a second; with `ENOSPC` or
    /// another code if the store allows no more transactions.
    pub fn transaction<T>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_>) -> Result<Outcome<T>, Error>,
    ) -> Result<T, Error> {
        let mut said = None;
        self.transact(&mut |transaction| {
            Ok(match body(transaction)? {
                Outcome::Commit(value) => {
                    said = Some(value);
                    Outcome::Commit(())
                }
                Outcome::Abort(value) => {
                    said = Some(value);
                    Outcome::Abort(())
                }
            })
        })?;
        Ok(said.expect("the body has run"))
    }

    /// The same, whatever the body's value is: there is one of it in the program.
    fn transact(&mut self, body: &mut Body<'_>) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.try_transaction(body) {
                Err(Error::Refused(ErrorCode::Again)) if tries < Self::TRANSACTION_TRIES => {
                    self.pause(back_off(tries))?;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn try_transaction(&mut self, body: &mut Body<'_>) -> Result<(), Error> {
        let id = self.ask(0, &Request::TransactionStart, |reply| match reply {
            Reply::TransactionStart(id) => Some(id),
            _ => None,
        })?;
        let mut transaction = Transaction { client: self, id };
        match body(&mut transaction) {
            Ok(Outcome::Commit(())) => transaction.end(true),
            Ok(Outcome::Abort(())) => transaction.dropped(),
            Err(error) => {
                if !error.ends_connection() {
                    transaction.dropped()?;
                }
                Err(error)
            }
        }
    }
}

impl Transaction<'_> {
    /// Ends the transaction without keeping anything. That the store has forgotten it by
    /// itself is as good.
    fn dropped(&mut self) -> Result<(), Error> {
        match self.end(false) {
            Err(Error::Refused(_)) => Ok(()),
            result => result,
        }
    }
}

/// How long to wait after this many tries: not at all after the first, then twice as long
/// each time, up to a limit.
fn back_off(tries: u32) -> Duration {
    const LONGEST: Duration = Duration::from_millis(50);
    let doublings = tries.saturating_sub(2).min(16);
    if tries < 2 { Duration::ZERO } else { Duration::from_millis(1 << doublings).min(LONGEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tries_together_take_less_than_a_second() {
        let waits: Vec<Duration> = (1..Client::TRANSACTION_TRIES).map(back_off).collect();
        assert_eq!(waits[..3], [0, 1, 2].map(Duration::from_millis));
        assert!(waits.iter().sum::<Duration>() < Duration::from_secs(1), "{waits:?}");
    }
}
