//! The interface of a device in the driver domain: `vif3.0` that netback has made, or
//! `vif3.0-emu` of a QEMU, under its own name or under the one that the toolstack wants.

use std::fs;

use devd_core::DeviceKey;

use super::Success;
use super::failure::{Failure, Step};
use super::link::{self, Link, Links};
use crate::shown;

/// Which interface it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) key: DeviceKey,
    /// It is the emulated one.
    pub(crate) tap: bool,
    /// The name that it had from whoever made it.
    pub(crate) given: String,
    /// The name that it is to have.
    pub(crate) name: String,
}

impl Interface {
    /// `vifname`: the value of the device's node, if it has one that is not empty.
    ///
    /// # Errors
    ///
    /// No interface can be called so.
    pub(crate) fn new(key: DeviceKey, tap: bool, vifname: &[u8]) -> Result<Self, Failure> {
        let suffix = if tap { "-emu" } else { "" };
        let given = format!("vif{}.{}{suffix}", key.domid, key.devid);
        if vifname.is_empty() {
            return Ok(Self { key, tap, name: given.clone(), given });
        }
        let name = std::str::from_utf8(vifname).map(|vifname| format!("{vifname}{suffix}"));
        match name.ok().filter(|name| link::is_name(name)) {
            Some(name) if name != given && is_of_a_device(&name) => Err(Failure::new(format!(
                "vifname is \"{name}\", which is the name of another device's interface"
            ))),
            Some(name) => Ok(Self { key, tap, given, name }),
            None => Err(Failure::new(format!(
                "vifname is \"{}{suffix}\", which cannot be the name of an interface: at most 15 \
                 letters, no blank, /, : or %",
                shown::value(vifname)
            ))),
        }
    }

    /// Finds it under the name that it has been given, or is to have. `None`: it is not there.
    pub(crate) fn look(&self, links: &mut Links) -> Result<Option<Link>, Failure> {
        let look = |links: &mut Links, name: &str| {
            links.find(name).step(|| format!("look for interface {name}"))
        };
        let given = look(links, &self.given)?;
        let named = if self.name == self.given { None } else { look(links, &self.name)? };
        match (given, named) {
            (Some(link), None) => Ok(Some(link)),
            // A daemon that was killed had come so far.
            (None, Some(link)) if self.is_ours(&link) => Ok(Some(link)),
            (None, None) => Ok(None),
            (_, Some(_)) => {
                let (given, name) = (&self.given, &self.name);
                Err(Failure::new(format!(
                    "cannot rename {given} to {name}: there is an interface of that name"
                )))
            }
        }
    }

    /// Finds it, takes it down, and gives it its name. `None`: it is not there.
    pub(crate) fn take(&self, links: &mut Links) -> Result<Option<Link>, Failure> {
        let Some(link) = self.look(links)? else { return Ok(None) };
        links.set_up(link.index, false).step(|| format!("take {} down", link.name))?;
        if link.name != self.name {
            let renamed = links.set_name(link.index, &self.name);
            if renamed.is_err() {
                self.restore(links, &link);
            }
            renamed.step(|| format!("rename {} to {}", self.given, self.name))?;
        }
        Ok(Some(link))
    }

    /// Finds it: by its index if it was seen before, whatever its name is by now, else by the
    /// name that it was given last.
    pub(crate) fn find(&self, links: &mut Links, last: Option<&Link>) -> Result<Found, Failure> {
        if let Some(last) = last {
            let link = links.at(last.index).step(|| format!("look for interface {}", self.name))?;
            if let Some(link) = link {
                return Ok(Found::Ours(link));
            }
        }
        let link = links.find(&self.name).step(|| format!("look for interface {}", self.name))?;
        Ok(match link {
            None => Found::Nothing,
            // Only netback, or this device's QEMU, calls an interface so.
            Some(link) if self.name == self.given || self.is_ours(&link) => Found::Ours(link),
            Some(_) => Found::Anothers,
        })
    }

    /// The same, and if that fails by the device that sysfs says it belongs to: it was renamed
    /// while nobody looked.
    pub(crate) fn locate(
        &self,
        links: &mut Links,
        last: Option<&Link>,
    ) -> Result<Option<Link>, Failure> {
        if let Found::Ours(link) = self.find(links, last)? {
            return Ok(Some(link));
        }
        if self.tap || last.is_some() {
            return Ok(None);
        }
        let all = links.all().step(|| "list the interfaces".into())?;
        Ok(all.into_iter().find(|link| self.is_ours(link)))
    }

    /// Makes the interface what it was before, as far as that goes.
    pub(crate) fn restore(&self, links: &mut Links, before: &Link) {
        let Link { index, .. } = *before;
        let mut steps = vec![
            links.set_up(index, false),
            links.set_master(index, before.master),
            links.set_mtu(index, before.mtu),
            links.set_mac(index, &before.mac),
        ];
        if before.name != self.name {
            steps.push(links.set_name(index, &before.name));
        }
        if before.up {
            steps.push(links.set_up(index, true));
        }
        // Why the hook failed is told; that the interface went on the way is why, most often.
        drop(steps);
    }

    /// Did the kernel make this interface for this device?
    fn is_ours(&self, link: &Link) -> bool {
        let device = fs::read_link(format!("/sys/class/net/{}/device", link.name));
        let expected = format!("vif-{}-{}", self.key.domid, self.key.devid);
        device.is_ok_and(|path| path.file_name().is_some_and(|name| *name == *expected))
    }
}

/// Is it such a name as netback and QEMU give?
fn is_of_a_device(name: &str) -> bool {
    let name = name.strip_suffix("-emu").unwrap_or(name);
    let numbers = name.strip_prefix("vif").and_then(|numbers| numbers.split_once('.'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(domid, devid)| is_number(domid) && is_number(devid))
}

/// What has the interface's name.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Ours(Link),
    /// The name was taken when this device wanted it, or was given away since.
    Anothers,
}

/// The interface is not there. A network interface that netback has made must be; one of a QEMU
/// is where that QEMU runs, which may be another domain.
pub(crate) fn missing(interface: &Interface) -> Result<Success, Failure> {
    let name = &interface.name;
    if interface.tap {
        let done = format!("there is no {name} in this domain: no QEMU here has made one");
        return Ok(Success { done, ..Success::default() });
    }
    Err(Failure::new(format!("there is no interface {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devd_core::Kind;

    #[test]
    fn the_name_is_the_toolstacks_if_it_can_be_one() {
        let key = DeviceKey { kind: Kind::Vif, domid: 3, devid: 1 };
        let name = |tap, vifname: &[u8]| Interface::new(key, tap, vifname).map(|vif| vif.name);
        assert_eq!(name(false, b"").as_deref(), Ok("vif3.1"));
        assert_eq!(name(true, b"").as_deref(), Ok("vif3.1-emu"));
        assert_eq!(name(false, b"web").as_deref(), Ok("web"));
        assert_eq!(name(true, b"web").as_deref(), Ok("web-emu"));
        assert_eq!(name(false, b"vif3.1").as_deref(), Ok("vif3.1"));
        assert_eq!(name(false, b"vif3.web").as_deref(), Ok("vif3.web"));
        assert!(name(false, b"vif4.0").unwrap_err().words().contains("another device"));
        assert!(name(true, b"vif4.0").is_err() && name(false, b"vif3.1-emu").is_err());
        assert!(name(false, b"../web").is_err());
        assert!(name(true, b"twelve-bytes").is_err(), "too long with what is added");
        assert!(name(false, b"\xff").unwrap_err().words().contains("\\xff"));
    }
}
