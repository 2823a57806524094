//! `vif-bridge`: a guest's interface becomes a port of a bridge.

use super::antispoof::Antispoof;
use super::bridge_vlan::Vlans;
use super::failure::{Failure, Step};
use super::link::{Link, Links};
use super::served::{self, Checked, Served, SharedServed};
use super::vif::{self, Found, Interface};
use super::{Made, Success, firewall};
use crate::shown;

/// The numerically largest address that is none of a group: a bridge takes the smallest of its
/// ports' for itself, and must not change it with every guest.
const MAC: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    pub(crate) interface: Interface,
    /// The value of `bridge`, empty if there is none.
    pub(crate) bridge: Vec<u8>,
    /// The value of `mtu`, if that is a number.
    pub(crate) mtu: Option<u32>,
    /// The value of `vlan`, if there is one.
    pub(crate) vlans: Option<Vlans>,
    pub(crate) antispoof: Antispoof,
}

impl Attach {
    pub(crate) fn run(self) -> Result<Success, Failure> {
        let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
        let bridge = find_bridge(&mut links, &self.bridge)?;
        self.check_filters_vlans(&bridge)?;
        let interface = &self.interface;
        let Some(before) = interface.take(&mut links)? else {
            return vif::missing(interface);
        };
        match self.set_up(&mut links, &bridge, &before) {
            Ok(success) => Ok(success),
            Err(failure) => {
                // A guest that could send before could then send as anybody.
                if !before.up {
                    self.antispoof.undo();
                }
                interface.restore(&mut links, &before);
                Err(failure)
            }
        }
    }

    /// The interface is down, and has its name.
    fn set_up(&self, links: &mut Links, bridge: &Link, before: &Link) -> Result<Success, Failure> {
        let (name, index) = (&self.interface.name, before.index);
        let mut success = Success::default();
        // As upstream, these two are tried and may fail.
        if let Err(error) = links.set_mac(index, &MAC) {
            success.remark(Failure::step(&format!("set the address of {name}"), &error));
        }
        links.flush_addresses(index).step(|| format!("take the IP addresses from {name}"))?;
        let mtu = self.mtu.unwrap_or(bridge.mtu);
        if mtu != before.mtu {
            match links.set_mtu(index, mtu) {
                Ok(()) => success.mtu = Some(mtu),
                Err(error) => success
                    .remark(Failure::step(&format!("set the MTU of {name} to {mtu}"), &error)),
            }
        } else {
            success.mtu = Some(mtu);
        }
        self.antispoof.apply()?;
        self.antispoof.tell(self.interface.tap, &mut success);
        if before.master != bridge.index {
            links
                .set_master(index, bridge.index)
                .step(|| format!("put {name} into bridge {}", bridge.name))?;
        }
        self.set_vlans(links, index)?;
        links.set_up(index, true).step(|| format!("take {name} up"))?;
        success.remarks.extend(lowered_mtu(links, bridge, name));
        success.done = format!("{name} is in bridge {}", bridge.name);
        let refused_mtu = success.mtu.is_none().then_some(before.mtu);
        let left_alone = LeftAlone { mtu: refused_mtu, ..LeftAlone::default() };
        let link = links.at(index).step(|| format!("look at {name}"))?;
        let bridge = Some(bridge.clone());
        let port = Port { wanted: self.clone(), link, bridge, left_alone };
        success.made = Some(Made::Interface(SharedServed::new(Served::Port(port))));
        Ok(success)
    }

    /// A guest that is to be in a VLAN must not be in all of the bridge.
    fn check_filters_vlans(&self, bridge: &Link) -> Result<(), Failure> {
        if self.vlans.is_none() || bridge.filters_vlans {
            return Ok(());
        }
        let name = &bridge.name;
        Err(Failure::new(format!(
            "the device has a vlan node, but bridge {name} does not filter VLANs: have it do so \
             (ip link set dev {name} type bridge vlan_filtering 1), or take vlan out of the \
             guest's config"
        )))
    }

    /// True if the port's VLANs were others.
    fn set_vlans(&self, links: &mut Links, index: u32) -> Result<bool, Failure> {
        let Some(vlans) = &self.vlans else { return Ok(false) };
        links.set_vlans(index, vlans).step(|| format!("set the VLANs of {}", self.interface.name))
    }
}

/// A remark if the bridge's MTU is lower than it was before the guest's interface came.
fn lowered_mtu(links: &mut Links, bridge: &Link, name: &str) -> Option<Failure> {
    let mtu = links.at(bridge.index).ok()??.mtu;
    let Link { name: bridge, mtu: before, .. } = bridge;
    (mtu < *before).then(|| {
        Failure::new(format!(
            "the MTU of {name} lowers that of bridge {bridge} from {before} to {mtu}: to keep it, \
             set it by hand (ip link set dev {bridge} mtu {before})"
        ))
    })
}

/// A port that is in place.
#[derive(Debug)]
pub(crate) struct Port {
    /// As the device's nodes ask for it; the interface has the name that it was last seen with.
    pub(super) wanted: Attach,
    /// The interface as it was when it was last looked at.
    pub(super) link: Option<Link>,
    /// The bridge that it was in then.
    bridge: Option<Link>,
    left_alone: LeftAlone,
}

/// What differs from what was made and stays so, of which the log has told.
#[derive(Debug, Default)]
struct LeftAlone {
    /// It is in the bridge, or the like, of this index.
    master: Option<u32>,
    /// It is down.
    down: bool,
    /// It has this MTU.
    mtu: Option<u32>,
    /// It has this MAC address.
    mac: Option<Vec<u8>>,
}

impl Port {
    /// One that an earlier daemon has made, for all that the device's nodes tell.
    pub(crate) fn found(wanted: Attach) -> Self {
        Self { wanted, link: None, bridge: None, left_alone: LeftAlone::default() }
    }

    /// Compares the interface with what was made, and puts right what others have changed; see
    /// docs/hooks.md for what is left alone.
    ///
    /// # Errors
    ///
    /// It cannot be put right, for now.
    pub(super) fn put_right(
        &mut self,
        links: &mut Links,
        checked: &mut Checked,
    ) -> Result<(), Failure> {
        let Some(link) = self.wanted.interface.locate(links, self.link.as_ref())? else {
            self.link = None;
            // The guest unplugs its emulated interface when it has come to the other one.
            let tap = self.wanted.interface.tap;
            return if tap { Ok(()) } else { Err(served::gone(&self.wanted.interface.name)) };
        };
        let (index, name) = (link.index, &link.name);
        // Whoever has renamed the interface wanted that.
        if *name != self.wanted.interface.name {
            let old = std::mem::replace(&mut self.wanted.interface.name, name.clone());
            self.wanted.antispoof.follow(name);
            checked.left_alone.push(format!("{old} is called {name} now, and served by that name"));
        }
        // Before it is a port again.
        self.wanted.antispoof.put_right(name, checked)?;
        self.put_right_mac(links, &link, checked);
        self.put_right_mtu(links, &link, checked);
        let result = self.put_right_master(links, &link, checked);
        self.link = links.at(index).step(|| format!("look at {}", self.wanted.interface.name))?;
        result
    }

    fn put_right_mac(&mut self, links: &mut Links, link: &Link, checked: &mut Checked) {
        if link.mac == MAC || self.left_alone.mac.as_ref() == Some(&link.mac) {
            return;
        }
        let name = &link.name;
        match links.set_mac(link.index, &MAC) {
            Ok(()) => {
                self.left_alone.mac = None;
                let sentence = format!("the MAC address of {name} was changed: set back");
                checked.put_right.push(sentence);
            }
            Err(error) => {
                self.left_alone.mac = Some(link.mac.clone());
                let failure = Failure::step(&format!("set the address of {name} back"), &error);
                checked.left_alone.push(failure.words().to_owned());
            }
        }
    }

    fn put_right_mtu(&mut self, links: &mut Links, link: &Link, checked: &mut Checked) {
        let (name, mtu) = (&link.name, link.mtu);
        let last = self.link.as_ref().map_or(mtu, |last| last.mtu);
        let wanted = self.wanted.mtu;
        if wanted == Some(mtu) {
            self.left_alone.mtu = None;
        }
        if wanted.unwrap_or(last) == mtu || self.left_alone.mtu == Some(mtu) {
            return;
        }
        let Some(wanted) = wanted else {
            // The guest's config asks for none.
            self.left_alone.mtu = Some(mtu);
            checked.left_alone.push(format!(
                "the MTU of {name} was changed from {last} to {mtu}: it stays so; the guest was \
                 told {last}"
            ));
            return;
        };
        match links.set_mtu(link.index, wanted) {
            Ok(()) => {
                let sentence = format!("the MTU of {name} was {mtu}: set back to {wanted}");
                checked.put_right.push(sentence);
            }
            // netback has lowered it for a guest that cannot take longer packets.
            Err(error) => {
                self.left_alone.mtu = Some(mtu);
                let step = format!("set the MTU of {name} back from {mtu} to {wanted}");
                checked.left_alone.push(Failure::step(&step, &error).words().to_owned());
            }
        }
    }

    fn put_right_master(
        &mut self,
        links: &mut Links,
        link: &Link,
        checked: &mut Checked,
    ) -> Result<(), Failure> {
        let name = &link.name;
        if link.master == 0 {
            self.left_alone.master = None;
            return self.put_back(links, link, checked);
        }
        let master = links.at(link.master).step(|| format!("look at what {name} is in"))?;
        let Some(master) = master else { return Ok(()) }; // Gone by now: that is an event.
        if !self.is_bridge_of(&master) {
            if self.left_alone.master != Some(master.index) {
                self.left_alone.master = Some(master.index);
                let wanted = match &self.bridge {
                    Some(bridge) => bridge.name.clone(),
                    None => shown::value(&self.wanted.bridge).to_string(),
                };
                checked.left_alone.push(format!(
                    "{name} is in {}, not in bridge {wanted}: it stays there; to put it back: ip \
                     link set dev {name} master {wanted}",
                    master.name
                ));
            }
            return Ok(());
        }
        self.left_alone.master = None;
        self.wanted.check_filters_vlans(&master)?;
        if self.wanted.set_vlans(links, link.index)? {
            checked.put_right.push(format!("the VLANs of {name} were changed: set back"));
        }
        if link.up {
            self.left_alone.down = false;
        } else if !self.left_alone.down {
            self.left_alone.down = true;
            checked.left_alone.push(format!(
                "{name} was taken down and cuts its guest off: it stays so until you take it up \
                 (ip link set dev {name} up)"
            ));
        }
        self.bridge = Some(master);
        Ok(())
    }

    /// Is this the bridge that it was put into, be it renamed, or made anew?
    fn is_bridge_of(&self, master: &Link) -> bool {
        let last = self.bridge.as_ref();
        let known = last.is_some_and(|last| last.index == master.index || last.name == master.name);
        known || master.is_bridge && is_wanted(&self.wanted.bridge, &master.name)
    }

    /// It has been taken out of its bridge, or the bridge is gone.
    fn put_back(
        &mut self,
        links: &mut Links,
        link: &Link,
        checked: &mut Checked,
    ) -> Result<(), Failure> {
        let (name, index) = (&link.name, link.index);
        let bridge = find_bridge(links, &self.wanted.bridge).inspect_err(|_| {
            checked.awaited_bridge = Some(self.wanted.bridge.clone());
        })?;
        self.wanted.check_filters_vlans(&bridge)?;
        links
            .set_master(index, bridge.index)
            .step(|| format!("put {name} back into bridge {}", bridge.name))?;
        self.wanted.set_vlans(links, index)?;
        let was = if link.up {
            "was in no bridge"
        } else {
            // It was taken down with its bridge, or on the way out of it.
            links.set_up(index, true).step(|| format!("take {name} up"))?;
            "was in no bridge, and down"
        };
        self.left_alone.down = false;
        checked.put_right.push(format!("{name} {was}: put back into bridge {}", bridge.name));
        if let Some(remark) = lowered_mtu(links, &bridge, name) {
            checked.put_right.push(remark.words().to_owned());
        }
        self.bridge = Some(bridge);
        Ok(())
    }

    /// Takes the interface out of its bridge again, or from its addresses, if it still is there.
    pub(super) fn detach(&self) -> Result<Success, Failure> {
        detach(&self.wanted.interface, self.link.as_ref(), self.wanted.antispoof.is_limited())
    }
}

/// Is the bridge of this name meant by the value of a `bridge` node?
pub(super) fn is_wanted(wanted: &[u8], name: &str) -> bool {
    let alias = wanted.strip_prefix(b"xenbr").zip(name.strip_prefix("eth"));
    wanted.is_empty()
        || wanted == name.as_bytes()
        || alias.is_some_and(|(wanted, number)| wanted == number.as_bytes())
}

/// The bridge of this name; without a name the first one there is.
fn find_bridge(links: &mut Links, wanted: &[u8]) -> Result<Link, Failure> {
    if wanted.is_empty() {
        let first = links.first_bridge().step(|| "list the bridges".into())?;
        return first.ok_or_else(|| {
            Failure::new("the device names no bridge, and this domain has none: make one")
        });
    }
    // What is no text is no interface's name either.
    let name = std::str::from_utf8(wanted).unwrap_or_default();
    let mut look = |name: &str| links.find(name).step(|| format!("look for bridge {name}"));
    let mut found = look(name)?;
    // Configurations of long ago call xenbr0 what is eth0 now.
    if found.is_none()
        && let Some(number) = name.strip_prefix("xenbr")
    {
        found = look(&format!("eth{number}"))?.filter(|link| link.is_bridge);
    }
    let shown = shown::value(wanted);
    match found {
        Some(link) if link.is_bridge => Ok(link),
        Some(_) => Err(Failure::new(format!("{shown} is an interface, but not a bridge"))),
        None => Err(Failure::new(format!(
            "there is no bridge {shown} in this domain: make it, or name another one in the \
             guest's config"
        ))),
    }
}

/// Takes the interface out of its bridge again, or from its addresses, if it still is there.
/// `last`: as it was when it was last looked at.
pub(crate) fn detach(
    interface: &Interface,
    last: Option<&Link>,
    limited: bool,
) -> Result<Success, Failure> {
    let mut links = Links::open().step(|| "talk to the kernel's network".into())?;
    let found = interface.find(&mut links, last)?;
    // If it is not there, netback has taken it away: the usual case.
    if let Found::Ours(link) = found {
        release(&mut links, &link)?;
    }
    // The guest can send no more: the rules go last.
    if limited {
        firewall::unprotect(interface)?;
    }
    Ok(Success::default())
}

fn release(links: &mut Links, link: &Link) -> Result<(), Failure> {
    let (name, index) = (&link.name, link.index);
    let down = links.set_up(index, false).step(|| format!("take {name} down"));
    links.flush_addresses(index).step(|| format!("take the IP addresses from {name}"))?;
    if link.master != 0 {
        links.set_master(index, 0).step(|| format!("take {name} out of its bridge"))?;
    }
    down
}
