//! What the toolstack writes for a device.

use super::DOMID;

/// A device as libxl would make it. Nodes can be changed, added and left out.
#[derive(Clone, Debug)]
pub struct Device {
    pub kind: &'static str,
    pub guest: u16,
    pub devid: u32,
    /// The nodes of the backend directory, in libxl's order.
    pub nodes: Vec<(&'static str, Vec<u8>)>,
    /// The frontend's `state`: 3 is a guest that has offered its rings.
    pub frontend_state: &'static str,
}

impl Device {
    /// A network interface.
    pub fn vif(guest: u16, devid: u32) -> Self {
        let mut device = Self::new("vif", guest, devid, "/etc/xen/scripts/vif-bridge");
        device.nodes.extend([
            ("mac", "00:16:3e:00:00:01".into()),
            ("bridge", "xenbr0".into()),
            ("handle", devid.to_string().into()),
            ("type", "vif".into()),
            ("hotplug-status", Vec::new()),
        ]);
        device
    }

    /// A network interface of a guest with an emulated one beside it.
    pub fn vif_ioemu(guest: u16, devid: u32) -> Self {
        Self::vif(guest, devid).with("type", "vif_ioemu")
    }

    /// A disk, served by blkback.
    pub fn vbd(guest: u16, devid: u32) -> Self {
        Self::disk("vbd", guest, devid)
    }

    /// A disk, served by tapback.
    pub fn vbd3(guest: u16, devid: u32) -> Self {
        Self::disk("vbd3", guest, devid)
    }

    /// A disk, served by QEMU.
    pub fn qdisk(guest: u16, devid: u32) -> Self {
        Self::disk("qdisk", guest, devid).without("script").with("params", "aio:/srv/disk")
    }

    /// A shared directory, served by QEMU.
    pub fn share(guest: u16, devid: u32) -> Self {
        Self::plain("9pfs", guest, devid).with("path", "/srv/share").with("security_model", "none")
    }

    /// A device without a hook.
    pub fn plain(kind: &'static str, guest: u16, devid: u32) -> Self {
        Self::new(kind, guest, devid, "").without("script")
    }

    fn disk(kind: &'static str, guest: u16, devid: u32) -> Self {
        let mut device = Self::new(kind, guest, devid, "/etc/xen/scripts/block");
        device.nodes.extend([
            ("params", "/srv/disk".into()),
            ("dev", "xvda".into()),
            ("type", "phy".into()),
            ("mode", "w".into()),
        ]);
        device
    }

    fn new(kind: &'static str, guest: u16, devid: u32, script: &str) -> Self {
        let frontend = format!("/local/domain/{guest}/device/{kind}/{devid}");
        let nodes = vec![
            ("frontend", frontend.into()),
            ("frontend-id", guest.to_string().into()),
            ("online", "1".into()),
            ("state", "1".into()),
            ("script", script.into()),
        ];
        Self { kind, guest, devid, nodes, frontend_state: "3" }
    }

    /// With this node.
    pub fn with(mut self, node: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.nodes.retain(|(name, _)| *name != node);
        self.nodes.push((node, value.as_ref().to_owned()));
        self
    }

    /// Without this node.
    pub fn without(mut self, node: &str) -> Self {
        self.nodes.retain(|(name, _)| *name != node);
        self
    }

    /// Of a guest that has not got as far as using it.
    pub fn unused(mut self) -> Self {
        self.frontend_state = "1";
        self
    }

    /// The backend directory as the driver domain names it.
    pub fn path(&self) -> String {
        format!("backend/{}/{}/{}", self.kind, self.guest, self.devid)
    }

    /// The backend directory.
    pub fn backend(&self) -> String {
        format!("/local/domain/{DOMID}/{}", self.path())
    }

    /// The frontend's directory.
    pub fn frontend(&self) -> String {
        format!("/local/domain/{}/device/{}/{}", self.guest, self.kind, self.devid)
    }
}
