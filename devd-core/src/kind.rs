//! The kinds of devices, and the server of each: the contract as data.

/// The server of a device: the party that brings its backend to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The kernel (netback), once the network hook has run.
    NetworkHook,
    /// The kernel (blkback) or tapback, once the block hook has run.
    BlockHook,
    /// A QEMU, one per guest, which the daemon starts and ends.
    Qemu,
    /// Another program. The daemon only removes the directory in the end.
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

            /// Its server.
            #[must_use]
            pub const fn served_by(self) -> ServedBy {
                match self {
                    $(Self::$kind => ServedBy::$server,)*
                }
            }
        }
    };
}

/// The bytes of a name in one word, the first one lowest; of a longer name the first eight.
pub(crate) const fn word_of(name: &[u8]) -> u64 {
    let (mut word, mut at) = (0, 0);
    while at < name.len() && at < 8 {
        word |= (name[at] as u64) << (8 * at);
        at += 1;
    }
    word
}

/// Finds a name of up to seven bytes by one multiplication and one comparison.
impl Kind {
    /// Gives every name a slot of its own, which the compiler checks.
    const MULTIPLIER: u64 = 0xb0c1_1fde_cb91_ce37;

    const fn slot(word: u64) -> usize {
        (word.wrapping_mul(Self::MULTIPLIER) >> 58) as usize
    }

    /// The name, with the slash behind it, and the kind in each slot. In an empty one is the
    /// first name, which is looked for in its own slot only.
    const SLOTS: [(u64, Self); 64] = {
        let mut slots = [(Self::word(Self::ALL[0]), Self::ALL[0]); 64];
        let (mut i, mut used) = (0, 0_u64);
        while i < Self::ALL.len() {
            if Self::ALL[i].name().len() < 8 {
                let word = Self::word(Self::ALL[i]);
                let slot = Self::slot(word);
                assert!(used & (1 << slot) == 0, "two kinds in one slot: take another MULTIPLIER");
                used |= 1 << slot;
                slots[slot] = (word, Self::ALL[i]);
            }
            i += 1;
        }
        slots
    };

    /// A name of up to seven bytes, with the slash behind it.
    const fn word(self) -> u64 {
        let name = self.name().as_bytes();
        word_of(name) | (b'/' as u64) << (8 * name.len())
    }

    /// The kind whose name, with a slash behind it, is in this word, the other bytes being zero.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let (name, kind) = Self::SLOTS[Self::slot(word)];
        (name == word).then_some(kind)
    }
}

#[allow(non_upper_case_globals)] // The names of the constants are the kinds'.
mod table {
    use super::ServedBy;

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
            let name = kind.name().as_bytes();
            assert_eq!(Kind::from_name(name), Some(*kind));
            let short = name.len() < 8;
            let found = Kind::from_word(word_of(&[name, b"/"].concat()));
            assert_eq!(found, short.then_some(*kind), "{}", kind.name());
        }
        for name in [&b""[..], b"VIF", b"vif ", b"vi", b"vbd4"] {
            assert_eq!(Kind::from_name(name), None);
        }
    }
}
