//! The operations of the protocol, one method each.
//!
//! Source: the operations of the same names in `xenstore.txt`.

use alloc::vec::Vec;

use xs_proto::{ErrorCode, Features, Path, Permission, PermissionList, Reply, Request};

use crate::{Client, Error, directory};

/// How far below its path a watch has events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// As far as was asked for.
    Limited,
    /// All the way: the store, or the way to it, knows no depth.
    Unlimited,
}

/// Operations on nodes. In a [`Transaction`](crate::Transaction) too.
///
/// A path is absolute, or relative to the home of the domain that the connection is of.
impl Client {
    /// The value of a node.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOENT` if there is none, `EACCES` if it may not be read.
    pub fn read(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        read(self, OUTSIDE, path.as_ref())
    }

    /// Is the node there?
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), but `ENOENT` is no error.
    pub fn exists(&mut self, path: impl AsRef<[u8]>) -> Result<bool, Error> {
        exists(self, OUTSIDE, path.as_ref())
    }

    /// The names of a node's children, however many; all as they were at one moment.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); `E2BIG` if there are too many for the store to say, `EAGAIN`
    /// if they never stop changing.
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>, Error> {
        directory(self, OUTSIDE, path.as_ref())
    }

    /// Sets the value of a node; makes it, and its parents, if need be.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`]; [`Error::Refused`]: `EACCES`, or a quota's code (`ENOSPC`,
    /// `E2BIG`, `EQUOTA`: each daemon has its own).
    pub fn write(&mut self, path: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        write(self, OUTSIDE, path.as_ref(), value.as_ref())
    }

    /// Makes a node without a value, and its parents. An existing node stays as it is.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn mkdir(&mut self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        mkdir(self, OUTSIDE, path.as_ref())
    }

    /// Removes a node and all below it. A missing node counts as removed, if its parent exists.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOENT` if the parent is not there, `EACCES`.
    pub fn rm(&mut self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        rm(self, OUTSIDE, path.as_ref())
    }

    /// The permissions of a node, the owner's first.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn permissions(&mut self, path: impl AsRef<[u8]>) -> Result<Vec<Permission>, Error> {
        permissions(self, OUTSIDE, path.as_ref())
    }

    /// Sets the permissions of a node, the owner's first.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EINVAL` if there are none, `EACCES` if the node is another's, or
    /// a quota's code.
    pub fn set_permissions(
        &mut self,
        path: impl AsRef<[u8]>,
        permissions: &[Permission],
    ) -> Result<(), Error> {
        set_permissions(self, OUTSIDE, path.as_ref(), permissions)
    }
}

/// Watches.
impl Client {
    /// Asks for events, with this token, when `path` or anything below it changes. A first event
    /// comes at once, whether there is such a node or not, perhaps before this returns.
    ///
    /// `@introduceDomain` and `@releaseDomain` are paths too.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `EEXIST` if this client has this watch already. The store is not
    /// asked for that: over the device it would not say so, and send every event twice.
    /// Else a quota's code.
    pub fn watch(&mut self, path: impl AsRef<[u8]>, token: impl AsRef<[u8]>) -> Result<(), Error> {
        self.set_watch(path.as_ref(), token.as_ref(), None).map(drop)
    }

    /// As [`watch`](Self::watch), for no more than `depth` levels below `path`: 0 is the node
    /// alone, 1 its children too. For `@introduceDomain` and `@releaseDomain` a depth of 1 makes
    /// the events name the domain, as `@releaseDomain/N`.
    ///
    /// Stores without [`Features::WATCH_DEPTH`](xs_proto::Features::WATCH_DEPTH) (4.17 among
    /// them) refuse a depth with `EINVAL`, and Linux's device drops it. The watch is set without a
    /// depth then, and the answer is [`Reach::Unlimited`]: events from further below come too, and
    /// are the caller's to ignore. The depth is asked for again at each reconnection.
    ///
    /// # Errors
    ///
    /// As [`watch`](Self::watch).
    pub fn watch_to_depth(
        &mut self,
        path: impl AsRef<[u8]>,
        token: impl AsRef<[u8]>,
        depth: u32,
    ) -> Result<Reach, Error> {
        self.set_watch(path.as_ref(), token.as_ref(), Some(depth))
    }

    fn set_watch(
        &mut self,
        path: &[u8],
        token: &[u8],
        wanted: Option<u32>,
    ) -> Result<Reach, Error> {
        Path::new(path)?;
        no_nul(token)?;
        self.check()?;
        if self.watches.contains(path, token) {
            return Err(Error::Refused(ErrorCode::Exist));
        }
        let depth = wanted.filter(|_| self.quirks().watch_depth);
        let mut result = self.ask(OUTSIDE, &Request::Watch { path, token, depth }, done);
        let mut reach = depth.map_or(Reach::Unlimited, |_| Reach::Limited);
        if reach == Reach::Limited && matches!(result, Err(Error::Refused(ErrorCode::Inval))) {
            result = self.ask(OUTSIDE, &Request::Watch { path, token, depth: None }, done);
            reach = Reach::Unlimited;
        }
        result?;
        self.watches.insert(path, token, wanted);
        Ok(reach)
    }

    /// No more events for this path and token. Events that are queued already still come.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: `ENOENT` if this client does not have this watch, which the store
    /// is not asked for either; or if the store has forgotten it, as after somebody else's
    /// RESET_WATCHES: the watch is gone then, and can be set again.
    pub fn unwatch(
        &mut self,
        path: impl AsRef<[u8]>,
        token: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, token) = (path.as_ref(), token.as_ref());
        self.check()?;
        if !self.watches.contains(path, token) {
            return Err(Error::Refused(ErrorCode::NoEnt));
        }
        let result = self.ask(OUTSIDE, &Request::Unwatch { path, token }, done);
        if matches!(result, Ok(()) | Err(Error::Refused(ErrorCode::NoEnt))) {
            self.watches.remove(path, token);
        }
        result
    }

    /// Ends all watches and transactions of this connection.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `ENOSYS` over the device, without asking: there it would be
    /// the kernel's own watches that end.
    pub fn reset_watches(&mut self) -> Result<(), Error> {
        if !self.quirks().reset_watches_allowed {
            return Err(Error::Refused(ErrorCode::NoSys));
        }
        self.ask(OUTSIDE, &Request::ResetWatches, done)?;
        self.watches.clear();
        Ok(())
    }
}

/// Domains. All but [`domain_path`](Self::domain_path) are for a privileged client.
///
/// # Errors
///
/// [`Error::Refused`]: `EACCES` or `EPERM` if the client is not privileged, `ENOENT` or
/// `EINVAL` if there is no such domain.
impl Client {
    /// The home of a domain, `/local/domain/N`, whether there is such a domain or not.
    pub fn domain_path(&mut self, domid: u16) -> Result<Vec<u8>, Error> {
        self.ask(OUTSIDE, &Request::GetDomainPath { domid }, |reply| match reply {
            Reply::GetDomainPath(path) => Some(path.to_vec()),
            _ => None,
        })
    }

    /// Is the store connected to this domain?
    pub fn is_domain_introduced(&mut self, domid: u16) -> Result<bool, Error> {
        self.ask(OUTSIDE, &Request::IsDomainIntroduced { domid }, |reply| match reply {
            Reply::IsDomainIntroduced(yes) => Some(yes),
            _ => None,
        })
    }

    /// Connects the store to a domain: its ring is in this frame, its event channel is this
    /// port of its side.
    pub fn introduce(&mut self, domid: u16, frame: u64, port: u32) -> Result<(), Error> {
        self.ask(OUTSIDE, &Request::Introduce { domid, frame, port }, done)
    }

    /// Ends the store's connection to a domain.
    pub fn release(&mut self, domid: u16) -> Result<(), Error> {
        self.ask(OUTSIDE, &Request::Release { domid }, done)
    }

    /// Says that a domain has resumed after its suspend, and may shut down again.
    pub fn resume(&mut self, domid: u16) -> Result<(), Error> {
        self.ask(OUTSIDE, &Request::Resume { domid }, done)
    }

    /// Gives `domid` the rights of `target` over its nodes.
    pub fn set_target(&mut self, domid: u16, target: u16) -> Result<(), Error> {
        self.ask(OUTSIDE, &Request::SetTarget { domid, target }, done)
    }
}

/// The daemon itself. For a privileged client, and for few daemons.
///
/// # Errors
///
/// [`Error::Refused`]: `ENOSYS` if the daemon does not know the operation, as 4.17 does not
/// know features and quotas; `EACCES` if the client is not privileged.
impl Client {
    /// Sends a command to the daemon, with its arguments; returns what it says.
    pub fn control(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let mut command = Vec::new();
        for word in words {
            no_nul(word)?;
            command.extend_from_slice(word);
            command.push(0);
        }
        self.ask(OUTSIDE, &Request::Control { command: &command }, |reply| match reply {
            Reply::Control(text) => Some(text.to_vec()),
            _ => None,
        })
    }

    /// The store's features for this client, or those that one domain sees.
    pub fn features(&mut self, domid: Option<u16>) -> Result<Features, Error> {
        self.ask_in_both_forms(&Request::GetFeature { domid }, domid.is_none(), |reply| match reply
        {
            Reply::GetFeature(bits) => Some(Features::from_bits(bits)),
            _ => None,
        })
    }

    /// Sets the features that a domain will see.
    pub fn set_features(&mut self, domid: u16, features: Features) -> Result<(), Error> {
        self.ask(OUTSIDE, &Request::SetFeature { domid, features: features.bits() }, done)
    }

    /// The names of the quotas that the store has.
    pub fn quota_names(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let request = Request::GetQuota { domid: None, name: None };
        self.ask_in_both_forms(&request, true, |reply| match reply {
            Reply::GetQuota(names) => Some(words(names)),
            _ => None,
        })
    }

    /// Asks a request that may have no arguments (`bare`) in the form that this daemon knows.
    ///
    /// The daemons disagree about a request without arguments. oxenstored never answers an empty
    /// payload. The newest C xenstored takes a single NUL for one empty argument and refuses it,
    /// with `EACCES` to a guest and `EINVAL` to domain 0. The client sends the NUL
    /// first, and an empty payload only to a daemon that refuses the NUL in these words.
    fn ask_in_both_forms<T>(
        &mut self,
        request: &Request<'_>,
        bare: bool,
        take: fn(Reply<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        match self.ask(OUTSIDE, request, take) {
            Err(Error::Refused(ErrorCode::Inval | ErrorCode::Acces)) if bare => {
                self.ask_nothing(request.message_type(), take)
            }
            result => result,
        }
    }

    /// A quota: the store's own, which new domains get, or one domain's.
    pub fn quota(&mut self, domid: Option<u16>, name: impl AsRef<[u8]>) -> Result<u32, Error> {
        let name = name.as_ref();
        no_nul(name)?;
        let request = Request::GetQuota { domid, name: Some(name) };
        self.ask(OUTSIDE, &request, |reply| match reply {
            Reply::GetQuota(value) => {
                let digits = value.strip_suffix(b"\0").unwrap_or(value);
                str::from_utf8(digits).ok()?.parse().ok()
            }
            _ => None,
        })
    }

    /// Sets a quota: the store's own, or one domain's.
    pub fn set_quota(
        &mut self,
        domid: Option<u16>,
        name: impl AsRef<[u8]>,
        value: u32,
    ) -> Result<(), Error> {
        let name = name.as_ref();
        no_nul(name)?;
        self.ask(OUTSIDE, &Request::SetQuota { domid, name, value }, done)
    }
}

/// The transaction id of what is in no transaction.
const OUTSIDE: u32 = 0;

pub(crate) fn read(client: &mut Client, tx_id: u32, path: &[u8]) -> Result<Vec<u8>, Error> {
    Path::new(path)?;
    client.ask(tx_id, &Request::Read { path }, |reply| match reply {
        Reply::Read(value) => Some(value.to_vec()),
        _ => None,
    })
}

pub(crate) fn exists(client: &mut Client, tx_id: u32, path: &[u8]) -> Result<bool, Error> {
    Path::new(path)?;
    match client.ask(tx_id, &Request::Read { path }, |_| Some(())) {
        Ok(()) => Ok(true),
        Err(Error::Refused(ErrorCode::NoEnt)) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn directory(
    client: &mut Client,
    tx_id: u32,
    path: &[u8],
) -> Result<Vec<Vec<u8>>, Error> {
    Path::new(path)?;
    let whole = client.ask(tx_id, &Request::Directory { path }, |reply| match reply {
        Reply::Directory(names) => Some(names.iter().map(<[u8]>::to_vec).collect()),
        _ => None,
    });
    match whole {
        Err(Error::Refused(ErrorCode::TooBig)) => directory::in_parts(client, tx_id, path),
        result => result,
    }
}

pub(crate) fn write(
    client: &mut Client,
    tx_id: u32,
    path: &[u8],
    value: &[u8],
) -> Result<(), Error> {
    Path::new(path)?;
    client.ask(tx_id, &Request::Write { path, value }, done)
}

pub(crate) fn mkdir(client: &mut Client, tx_id: u32, path: &[u8]) -> Result<(), Error> {
    Path::new(path)?;
    client.ask(tx_id, &Request::Mkdir { path }, done)
}

pub(crate) fn rm(client: &mut Client, tx_id: u32, path: &[u8]) -> Result<(), Error> {
    Path::new(path)?;
    client.ask(tx_id, &Request::Rm { path }, done)
}

pub(crate) fn permissions(
    client: &mut Client,
    tx_id: u32,
    path: &[u8],
) -> Result<Vec<Permission>, Error> {
    Path::new(path)?;
    client.ask(tx_id, &Request::GetPerms { path }, |reply| match reply {
        Reply::GetPerms(list) => Some(list.iter().collect()),
        _ => None,
    })
}

pub(crate) fn set_permissions(
    client: &mut Client,
    tx_id: u32,
    path: &[u8],
    permissions: &[Permission],
) -> Result<(), Error> {
    Path::new(path)?;
    let mut list = Vec::new();
    permissions.iter().for_each(|permission| permission.emit(&mut list));
    let list = PermissionList::parse(&list).map_err(|_| Error::Refused(ErrorCode::Inval))?;
    client.ask(tx_id, &Request::SetPerms { path, permissions: list }, done)
}

/// The result of an operation that only does something.
pub(crate) fn done(reply: Reply<'_>) -> Option<()> {
    matches!(reply, Reply::Ok(_)).then_some(())
}

/// A string ends at its first NUL on the wire, so that none may be in it.
fn no_nul(string: &[u8]) -> Result<(), Error> {
    if string.contains(&0) { Err(Error::Nul) } else { Ok(()) }
}

/// The words between blanks and NULs.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| byte.is_ascii_whitespace() || *byte == 0)
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}
