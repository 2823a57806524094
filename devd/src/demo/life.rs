//! One guest from beginning to end, as the toolstack sees it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use devd_core::{DeviceKey, Domid};
use xs_client::Error;

use super::guest::Frontends;
use super::host::Host;
use super::toolstack::{Sight, Toolstack, devices};

/// How long the toolstack waits for a device to connect, for it to go, and for QEMU to end:
/// longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it does not notice that it is to give up.
const TICK: Duration = Duration::from_millis(100);

/// The states of `xenbus_state` that matter here.
const INITIALISING: u8 = 1;
const CONNECTED: u8 = 4;
const CLOSING: u8 = 5;
const CLOSED: u8 = 6;

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) key: DeviceKey,
    /// The states of the backend that the toolstack has written or seen.
    pub(super) states: Vec<u8>,
    /// From its making until both ends were connected.
    pub(super) attach: Option<Duration>,
    /// From the wish to detach it until its directory was gone.
    pub(super) detach: Option<Duration>,
    /// Why it did not go the whole way.
    pub(super) failure: Option<String>,
}

impl Life {
    pub(super) const fn new(key: DeviceKey) -> Self {
        Self { key, states: Vec::new(), attach: None, detach: None, failure: None }
    }

    /// Keeps the first reason: others follow from it.
    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    fn see(&mut self, state: Option<u8>) {
        if let Some(state) = state
            && self.states.last() != Some(&state)
        {
            self.states.push(state);
        }
    }
}

/// Why the toolstack cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the toolstack: {0}")]
    Store(#[from] Error),
    #[error("the toolstack: {0}")]
    System(#[from] io::Error),
    #[error("the guest: {0}")]
    Guest(Error),
    #[error("interrupted")]
    Interrupted,
}

/// A guest that is up. Dropping it destroys it.
#[derive(Debug)]
pub(super) struct Guest<'a> {
    host: &'a Host,
    /// Set when all is to be given up.
    stop: &'a AtomicBool,
    domid: Domid,
    toolstack: Toolstack,
    frontends: Option<JoinHandle<Result<(), Error>>>,
    lives: Vec<Life>,
    /// When the devices were made, or were to be detached.
    since: Vec<Instant>,
}

impl<'a> Guest<'a> {
    /// Makes the guest, without devices.
    pub(super) fn start(
        host: &'a Host,
        domid: Domid,
        stop: &'a AtomicBool,
    ) -> Result<Self, Trouble> {
        let mut toolstack = Toolstack::new(host.connect(0)?);
        host.store().introduce(domid);
        toolstack.create_guest(domid)?;
        let frontends = Frontends::new(host.connect(domid)?).map_err(Trouble::Guest)?;
        let frontends = Some(thread::spawn(move || frontends.run()));
        let lives = devices(domid).map(Life::new).into();
        Ok(Self { host, stop, domid, toolstack, frontends, lives, since: Vec::new() })
    }

    /// Attaches the devices and waits until all are connected, or have failed.
    pub(super) fn attach(&mut self) {
        let attached = self.make_devices().and_then(|()| {
            self.wait("not connected", |life, sight, since| {
                if let Some(reason) = &sight.error {
                    life.fail(reason.clone());
                    return true;
                }
                let connected =
                    (sight.backend, sight.frontend) == (Some(CONNECTED), Some(CONNECTED));
                if connected {
                    life.attach = Some(since.elapsed());
                }
                connected
            })
        });
        self.blame(attached);
    }

    /// Detaches the devices and waits until they are gone, and their QEMU too.
    pub(super) fn detach(mut self) -> Vec<Life> {
        let detached = self.let_devices_go().and_then(|()| {
            self.wait("not gone", |life, sight, since| {
                if sight.backend.is_some() {
                    return false;
                }
                if life.states.last() != Some(&CLOSED) {
                    life.fail("its directory was gone before the toolstack saw it closed".into());
                }
                life.detach = Some(since.elapsed());
                true
            })
        });
        let cleaned_up = detached.and_then(|()| self.clean_up());
        self.blame(cleaned_up);
        let destroyed = self.destroy();
        self.blame(destroyed);
        std::mem::take(&mut self.lives)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lives.iter().any(|life| life.failure.is_some())
    }

    fn make_devices(&mut self) -> Result<(), Trouble> {
        for life in &self.lives {
            self.toolstack.watch(life.key)?;
        }
        for life in &mut self.lives {
            self.since.push(Instant::now());
            self.toolstack.create(life.key)?;
            life.see(Some(INITIALISING));
        }
        Ok(())
    }

    fn let_devices_go(&mut self) -> Result<(), Trouble> {
        self.since.clear();
        for life in &mut self.lives {
            self.since.push(Instant::now());
            self.toolstack.detach(life.key)?;
            life.see(Some(CLOSING));
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), Trouble> {
        for life in &self.lives {
            self.toolstack.clean_up(life.key)?;
        }
        self.toolstack.watch_qemu(self.domid)?;
        let deadline = Instant::now() + PATIENCE;
        while self.toolstack.knows_qemu(self.domid)? {
            self.check_stop()?;
            if Instant::now() >= deadline {
                let reason = format!("QEMU's nodes are still there after {} s", PATIENCE.as_secs());
                self.lives.iter_mut().for_each(|life| life.fail(reason.clone()));
                break;
            }
            self.toolstack.wait(TICK)?;
        }
        Ok(())
    }

    /// Looks at the devices until `is_over` says of each that it is. What is not in time has
    /// failed, for `what`.
    fn wait(
        &mut self,
        what: &str,
        is_over: impl Fn(&mut Life, &Sight, Instant) -> bool,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let keys: Vec<DeviceKey> = self.lives.iter().map(|life| life.key).collect();
        let mut over = vec![false; keys.len()];
        loop {
            let sights = self.toolstack.look(&keys)?;
            let lives = self.lives.iter_mut().zip(&self.since);
            for (((life, since), sight), over) in lives.zip(&sights).zip(&mut over) {
                life.see(sight.backend);
                *over = *over || is_over(life, sight, *since);
            }
            if over.iter().all(|over| *over) {
                return Ok(());
            }
            self.check_stop()?;
            if Instant::now() >= deadline {
                let late = self.lives.iter_mut().zip(&sights).zip(over).filter(|(_, over)| !over);
                for ((life, sight), _) in late {
                    life.fail(format!("{what} after {} s: {}", PATIENCE.as_secs(), ends(sight)));
                }
                return Ok(());
            }
            self.toolstack.wait(TICK)?;
        }
    }

    fn check_stop(&self) -> Result<(), Trouble> {
        if self.stop.load(Ordering::Relaxed) { Err(Trouble::Interrupted) } else { Ok(()) }
    }

    /// The domain goes, and its connection with it, which ends the thread.
    fn destroy(&mut self) -> Result<(), Trouble> {
        let Some(frontends) = self.frontends.take() else { return Ok(()) };
        self.host.store().release(self.domid);
        if let Ok(result) = frontends.join() {
            result.map_err(Trouble::Guest)?;
        }
        Ok(self.toolstack.remove_guest(self.domid)?)
    }

    /// What keeps the toolstack from going on is a failure of all devices.
    fn blame(&mut self, result: Result<(), Trouble>) {
        if let Err(trouble) = result {
            self.lives.iter_mut().for_each(|life| life.fail(trouble.to_string()));
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // Whoever wants to know whether that works calls `detach`.
        let _ = self.destroy();
    }
}

/// How far the two ends of a device are.
fn ends(sight: &Sight) -> String {
    let state =
        |state: Option<u8>| state.map_or("missing".into(), |state| format!("in state {state}"));
    format!("the backend is {}, the frontend {}", state(sight.backend), state(sight.frontend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_noted_when_it_changes() {
        let mut life = Life::new(devices(2)[0]);
        for state in [None, Some(1), Some(1), Some(2), Some(4), None] {
            life.see(state);
        }
        assert_eq!(life.states, [1, 2, 4]);
    }

    #[test]
    fn the_first_reason_counts() {
        let mut life = Life::new(devices(2)[0]);
        life.fail("no bridge".into());
        life.fail("not gone".into());
        assert_eq!(life.failure.as_deref(), Some("no bridge"));
    }

    #[test]
    fn a_device_that_is_late_is_told_by_its_two_ends() {
        let sight = Sight { backend: Some(2), ..Sight::default() };
        assert_eq!(ends(&sight), "the backend is in state 2, the frontend missing");
    }
}
