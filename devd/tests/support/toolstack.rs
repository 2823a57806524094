//! What the toolstack writes, as libxl does.

use xs_client::{Client, Outcome};
use xs_proto::{Access, Permission};

use super::kernel::commit;
use super::{DOMID, Device};

/// Makes a device: all of it in one transaction.
pub fn attach(client: &mut Client, device: &Device) {
    let guest = format!("/local/domain/{}", device.guest);
    let (backend, frontend) = (device.backend(), device.frontend());
    let owned_and_read = |owner, reader| {
        [
            Permission { domid: owner, access: Access::None },
            Permission { domid: reader, access: Access::Read },
        ]
    };
    let made = commit(client, |transaction| {
        if !transaction.exists(&guest)? {
            transaction.mkdir(&guest)?;
            transaction.set_permissions(&guest, &owned_and_read(0, device.guest))?;
        }
        transaction.mkdir(&frontend)?;
        transaction.set_permissions(&frontend, &owned_and_read(device.guest, DOMID))?;
        transaction.write(format!("{frontend}/backend"), &backend)?;
        transaction.write(format!("{frontend}/state"), device.frontend_state)?;
        transaction.mkdir(&backend)?;
        transaction.set_permissions(&backend, &owned_and_read(DOMID, device.guest))?;
        for (node, value) in &device.nodes {
            transaction.write(format!("{backend}/{node}"), value)?;
        }
        Ok(Outcome::Commit(()))
    });
    made.unwrap();
}

/// Asks for a device's end. The device is there: to write its nodes would make it again.
pub fn detach(client: &mut Client, device: &Device) {
    let backend = device.backend();
    let asked = commit(client, |transaction| {
        assert!(transaction.exists(&backend)?, "{backend} is gone already");
        transaction.write(format!("{backend}/online"), "0")?;
        transaction.write(format!("{backend}/state"), "5")?;
        Ok(Outcome::Commit(()))
    });
    asked.unwrap();
}
