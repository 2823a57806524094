//! A stand-in for the QEMU that serves a guest's disks: it writes what a QEMU writes, and
//! moves no data.

use devd_core::{Domid, Kind};
use xs_client::{Address, Client};

use super::PartError;
use super::backend;

/// Serves until SIGHUP ends it, as it ends any program that does not ask for better, or until
/// the store is gone.
pub(super) fn run(words: &[String]) -> Result<(), PartError> {
    let domid = guest(words).ok_or_else(|| PartError::Words(words.to_vec()))?;
    let mut client = Client::open(Address::find(None)?)?;
    for backend in ["console", "vkbd", "9pfs", "qusb", "vfb", "qnic"] {
        client.mkdir(format!("device-model/{domid}/backends/{backend}"))?;
    }
    client.write(format!("device-model/{domid}/state"), "running")?;
    println!("serving the disks of guest {domid} (not really)");
    backend::serve(client, &format!("backend/qdisk/{domid}"), &[Kind::Qdisk])?;
    Ok(())
}

fn guest(words: &[String]) -> Option<Domid> {
    let mut words = words.iter().skip_while(|word| *word != "-xen-domid");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_where_a_qemu_is_told_it() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(guest(&words("-xen-domid 7 -xen-attach -name domain-7")), Some(7));
        assert_eq!(guest(&words("-xen-attach -xen-domid")), None);
        assert_eq!(guest(&words("-xen-domid -1")), None);
    }
}
