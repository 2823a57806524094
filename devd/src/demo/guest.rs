//! A guest: the frontends, as netfront and blkfront behave towards the store.

use std::collections::HashSet;

use xs_client::{Client, Error, Event};

use super::backend::is_gone;

/// The token of the watch on the guest's own devices. That of a watch on a backend is the
/// frontend's directory.
const OWN: &[u8] = b"own";

/// A guest that has booted: it hears of every device that is made from now on.
#[derive(Debug)]
pub(super) struct Frontends {
    client: Client,
    /// The frontends whose backends are watched.
    watched: HashSet<String>,
}

impl Frontends {
    pub(super) fn new(mut client: Client) -> Result<Self, Error> {
        client.watch("device", OWN)?;
        Ok(Self { client, watched: HashSet::new() })
    }

    /// Runs until the domain is gone, and with it the connection.
    pub(super) fn run(mut self) -> Result<(), Error> {
        loop {
            match self.handle_event() {
                Err(error) if error.ends_connection() => return Ok(()),
                Err(error) if is_gone(&error) => {}
                result => result?,
            }
        }
    }

    fn handle_event(&mut self) -> Result<(), Error> {
        // Far fewer come at once than make the client lose any.
        let Some(Event::Watch(event)) = self.client.wait_event(None)? else { return Ok(()) };
        let path = if event.token == OWN { event.path } else { event.token };
        match frontend(path) {
            Some(frontend) => self.step(&frontend),
            None => Ok(()),
        }
    }

    /// Looks at the device and does what there is to do.
    fn step(&mut self, frontend: &str) -> Result<(), Error> {
        let state = self.client.read(format!("{frontend}/state"))?;
        let mut backend = self.client.read(format!("{frontend}/backend"))?;
        backend.extend_from_slice(b"/state");
        if self.watched.insert(frontend.to_owned()) {
            self.client.watch(&backend, frontend)?;
        }
        let backend = self.client.read(&backend)?;
        let network = frontend.starts_with("device/vif/");
        let steps: &[&str] = match (&state[..], &backend[..]) {
            (b"1", b"2") if network => &["4"],
            (b"1", b"2") => &["3"],
            (b"3", b"4") => &["4"],
            (b"1" | b"3" | b"4", b"5") => &["5", "6"],
            _ => &[],
        };
        steps.iter().try_for_each(|state| self.client.write(format!("{frontend}/state"), state))
    }
}

/// The directory of the frontend that the path is in.
fn frontend(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let parts: Vec<&str> = path.splitn(4, '/').collect();
    (parts.len() >= 3).then(|| parts[..3].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_found_from_any_node_of_it() {
        for path in ["device/vif/0", "device/vif/0/state", "device/vif/0/queue-0/tx"] {
            assert_eq!(frontend(path.as_bytes()).as_deref(), Some("device/vif/0"));
        }
        assert_eq!(frontend(b"device/vif"), None);
        assert_eq!(frontend(b"device"), None);
    }
}
