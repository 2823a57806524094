//! The kinds of devices, and who serves them: the contract as data.

/// Who gets the backend of a device going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The kernel (netback), once the network hook has run.
    NetworkHook,
    /// The kernel (blkback) or tapback, once the block hook has run.
    BlockHook,
    /// A QEMU, one per guest, which the daemon starts and ends.
    Qemu,
    /// Somebody else. The daemon only removes the directory in the end.
    Elsewhere,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $server:ident;)*) => {
        /// A kind of backend: the directory under `backend` that its devices are in.
        ///
        /// Source: `libxl__device_kind` in Xen's `tools/libs/light`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The kind with this name in the store.
            #[must_use]
            #[inline]
            pub fn from_name(name: &[u8]) -> Option<Self> {
                $(const $kind: &[u8] = $name.as_bytes();)*
                match name {
                    $($kind => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// Its name in the store.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// Who serves it.
            #[must_use]
            pub const fn server(self) -> Server {
                match self {
                    $(Self::$kind => Server::$server,)*
                }
            }
        }
    };
}

#[allow(non_upper_case_globals)] // The names of the constants are the kinds'.
mod table {
    use super::Server;

    kinds! {
        /// A network interface, by netback.
        Vif = "vif", NetworkHook;
        /// A disk, by blkback.
        Vbd = "vbd", BlockHook;
        /// A disk, by tapback.
        Vbd3 = "vbd3", BlockHook;
        /// A disk, by QEMU.
        Qdisk = "qdisk", Qemu;
        /// A shared directory, by QEMU.
        P9 = "9pfs", Qemu;
        /// A framebuffer.
        Vfb = "vfb", Elsewhere;
        /// A keyboard and pointer.
        Vkbd = "vkbd", Elsewhere;
        /// A USB controller, by QEMU.
        Qusb = "qusb", Elsewhere;
        /// PCI devices that are passed through.
        Pci = "pci", Elsewhere;
        /// A console.
        Console = "console", Elsewhere;
        /// A TPM.
        Vtpm = "vtpm", Elsewhere;
        /// A USB controller, by the kernel.
        Vusb = "vusb", Elsewhere;
        /// A display.
        Vdispl = "vdispl", Elsewhere;
        /// A serial port.
        Vuart = "vuart", Elsewhere;
        /// Sockets.
        Pvcalls = "pvcalls", Elsewhere;
        /// Sound.
        Vsnd = "vsnd", Elsewhere;
        /// Input.
        Vinput = "vinput", Elsewhere;
        /// Any virtio device.
        Virtio = "virtio", Elsewhere;
        /// A virtio disk.
        VirtioDisk = "virtio_disk", Elsewhere;
        /// A shared directory, by xen9pfsd.
        Xen9pfs = "xen_9pfs", Elsewhere;
    }
}

pub use table::Kind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name().as_bytes()), Some(*kind));
        }
        for name in [&b""[..], b"VIF", b"vif ", b"vi", b"vbd4"] {
            assert_eq!(Kind::from_name(name), None);
        }
    }
}
