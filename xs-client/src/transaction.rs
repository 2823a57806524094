//! Several operations as one.

use alloc::vec::Vec;
use core::time::Duration;

use xs_proto::{ErrorCode, Permission, Reply, Request};

use crate::{Batch, Client, Error, operations};

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Keep the changes: all of them at once, or none.
    Commit(T),
    /// Forget the changes.
    Abort(T),
}

/// Changes that other clients do not see before they are committed. [`Client::transaction`]
/// makes one.
///
/// Reads are not a snapshot on every store. The C xenstored and the embedded store read a node
/// that the transaction has not touched yet as it is now, so one body may see two nodes from
/// different times. A commit after such a mixture fails with `EAGAIN`, and the body is run again:
/// only what a *committed* body has read was true at one moment. A body therefore must not act on
/// what it reads outside of the store.
///
/// The operations are the client's of the same names.
pub struct Transaction<'c> {
    client: &'c mut Client,
    id: u32,
    ended: bool,
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
        self.ended = true;
        let request = Request::TransactionEnd { commit };
        self.client.ask(self.id, &request, operations::done)
    }
}

/// A body that panics ends its transaction while it unwinds: the store allows a domain ten, and
/// would refuse all further ones until the connection is opened anew.
impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended && self.client.is_connected() {
            // The panic is on its way to the caller; a refusal has nobody left to hear of it.
            let _ = self.end(false);
        }
    }
}

type Body<'b> = dyn FnMut(&mut Transaction<'_>) -> Result<Outcome<()>, Error> + 'b;

impl Client {
    /// How often a transaction is tried at most, unless
    /// [`set_transaction_tries`](Self::set_transaction_tries) says otherwise.
    pub const TRANSACTION_TRIES: u32 = 16;

    /// Sets how often a transaction is tried at most: at least once. Many clients that change the
    /// same nodes need more tries than [`TRANSACTION_TRIES`](Self::TRANSACTION_TRIES); each try
    /// after the seventh waits for up to 50 ms.
    pub const fn set_transaction_tries(&mut self, tries: u32) {
        self.transaction_tries = tries;
    }

    /// Runs `body` in a transaction and commits it. While the store says that another client came
    /// in between (`EAGAIN`), runs it again after a random wait that grows with each try: clients
    /// in step would collide again.
    ///
    /// A further try does not undo what `body` did outside of the transaction. If `body` fails,
    /// panics or says [`Outcome::Abort`], the transaction is dropped.
    ///
    /// # Errors
    ///
    /// The errors of `body` and of its operations. [`Error::Refused`] with `EAGAIN` after
    /// [`TRANSACTION_TRIES`](Self::TRANSACTION_TRIES) tries, within a second; with `ENOSPC` or
    /// another code if the store allows no more transactions. [`Error::Protocol`] if the store
    /// starts the transaction 0, which is none: `body` does not run then.
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

    /// As [`transaction`](Self::transaction), for a body with errors of its own. An error of
    /// `body` drops the transaction and is returned; it never makes `body` run again.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction), and the errors of `body`.
    pub fn transaction_or<T, E: From<Error>>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_>) -> Result<Outcome<T>, E>,
    ) -> Result<T, E> {
        let mut failed = None;
        let result = self.transaction(|transaction| match body(transaction) {
            Ok(Outcome::Commit(value)) => Ok(Outcome::Commit(Some(value))),
            Ok(Outcome::Abort(value)) => Ok(Outcome::Abort(Some(value))),
            Err(error) => {
                failed = Some(error);
                Ok(Outcome::Abort(None))
            }
        });
        match (failed, result) {
            (Some(error), _) => Err(error),
            (None, Ok(value)) => Ok(value.expect("a body that has not failed has a value")),
            (None, Err(error)) => Err(error.into()),
        }
    }

    /// The same, whatever the body's value is: there is one of it in the program.
    fn transact(&mut self, body: &mut Body<'_>) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.try_transaction(body) {
                Err(Error::Refused(ErrorCode::Again)) if tries < self.transaction_tries => {
                    let number = random(self.clock.now());
                    self.pause(part_of(longest_wait(tries), number))?;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn try_transaction(&mut self, body: &mut Body<'_>) -> Result<(), Error> {
        let id = self.ask(0, &Request::TransactionStart, |reply| match reply {
            // Requests with the id 0 are outside of any transaction. oxenstored's counter gets
            // there when it wraps.
            Reply::TransactionStart(id) if id != 0 => Some(id),
            _ => None,
        })?;
        let mut transaction = Transaction { client: self, id, ended: false };
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
    /// Ends the transaction and drops its changes. A refusal is no error: the store has forgotten
    /// the transaction by itself.
    fn dropped(&mut self) -> Result<(), Error> {
        match self.end(false) {
            Err(Error::Refused(_)) => Ok(()),
            result => result,
        }
    }
}

/// The longest wait after this many tries: zero after the first, then 1 ms, doubled each time, up
/// to 50 ms.
fn longest_wait(tries: u32) -> Duration {
    const LIMIT: Duration = Duration::from_millis(50);
    let doublings = tries.saturating_sub(2).min(16);
    if tries < 2 { Duration::ZERO } else { Duration::from_millis(1 << doublings).min(LIMIT) }
}

/// `numerator / u32::MAX` of the duration.
fn part_of(longest: Duration, numerator: u32) -> Duration {
    longest.mul_f64(f64::from(numerator) / f64::from(u32::MAX))
}

/// A number that differs between clients and between tries: the nanoseconds of the clock, mixed
/// (splitmix64). Clients in step differ by more than one.
fn random(now: Duration) -> u32 {
    let [.., a, b, c, d] = {
        let mut mixed = u64::from(now.subsec_nanos()).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_be_bytes()
    };
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tries_together_take_less_than_a_second() {
        let waits: Vec<Duration> = (1..Client::TRANSACTION_TRIES).map(longest_wait).collect();
        assert_eq!(waits[..3], [0, 1, 2].map(Duration::from_millis));
        assert!(waits.iter().sum::<Duration>() < Duration::from_secs(1), "{waits:?}");
    }

    #[test]
    fn wait_is_a_random_part_of_the_longest() {
        let longest = Duration::from_millis(50);
        assert_eq!(part_of(longest, 0), Duration::ZERO);
        assert_eq!(part_of(longest, u32::MAX), longest);
        let waits: Vec<Duration> =
            (0..1000).map(|n| part_of(longest, random(Duration::from_nanos(n)))).collect();
        let mean = waits.iter().sum::<Duration>() / 1000;
        assert!((longest * 2 / 5..longest * 3 / 5).contains(&mean), "{mean:?}");
        assert_ne!(waits[0], waits[1]);
    }
}
