//! What the log says of devices.

use std::collections::HashSet;

use devd_core::{DeviceKey, Notice, ServedBy};

use super::{Daemon, Stage};

impl Daemon<'_> {
    pub(super) fn report(&mut self, key: DeviceKey, notice: Notice) {
        match notice {
            Notice::Found => {
                if self.stage != Stage::Serving {
                    self.hooks.builtins().handle_disk(key); // An earlier daemon's, perhaps.
                }
                log::debug!("{key}: found");
            }
            Notice::Attached => {
                self.hooks.builtins().handle_disk(key);
                self.hooks.forget_last_line(key);
                log::info!("{key}: attached{}", self.attached_by(key));
            }
            Notice::Adopted => {
                self.hooks.builtins().handle_disk(key);
                if let Some(hook) = self.dispatcher.add_hook(key)
                    && !self.options.dry_run
                {
                    self.hooks.handle_served(&hook);
                    self.pending.builtins = true;
                }
                log::info!("{key}: served already");
            }
            Notice::Slow => log::warn!(
                "{key}: its backend is not ready after {} s; still waiting. Is its kernel \
                 module (xen-netback, xen-blkback) loaded? The kernel's log may say more",
                self.options.init_timeout.as_secs()
            ),
            Notice::HookWaits { until } => {
                let millis = until.as_millis().saturating_sub(self.clock.now().as_millis());
                log::warn!(
                    "{key}: its backend was made anew again and again; its hook runs again in {} s. \
                     Look what makes its guest reconnect",
                    millis.div_ceil(1000)
                );
            }
            Notice::Closed => log::info!("{key}: closed by its guest, or by the toolstack"),
            Notice::SuccessorWaits => log::info!(
                "{key}: a new device has its numbers, and is served when the removal hook of \
                 this one has ended"
            ),
            Notice::Replaced => log::info!("{key}: another device has taken its place"),
            Notice::RemovalHook(failure) => {
                let said = self.hooks.builtins().take_words(key);
                let script = self.dispatcher.script(key).unwrap_or_default();
                let text = said.unwrap_or_else(|| self.surroundings.hook_failure(failure, script));
                let text = self.hooks.explain(key, text);
                log::warn!("{key}: its removal hook failed: {text}; the device goes all the same");
            }
            Notice::RemovalRefused => {
                log::warn!("{key}: its directory cannot be removed yet; will try again");
            }
            Notice::Gone => {
                self.hooks.take_added(key);
                self.hooks.handle_gone(key);
                self.hooks.forget_last_line(key);
                log::info!("{key}: gone");
            }
        }
    }
}

impl Daemon<'_> {
    /// By what a device was attached: its hook, or the QEMU of its guest.
    fn attached_by(&mut self, key: DeviceKey) -> String {
        match key.kind.served_by() {
            ServedBy::Qemu => match self.qemus.process(key.domid) {
                Some(pid) => format!(" by its guest's QEMU, process {pid}"),
                None => " by its guest's QEMU".into(),
            },
            ServedBy::NetworkHook | ServedBy::BlockHook | ServedBy::Elsewhere => {
                self.hooks.take_added(key)
            }
        }
    }
}

pub(super) fn tell_unknown_kind(told: &mut HashSet<Vec<u8>>, name: &[u8]) {
    // Nobody makes that many; the bound is for whoever tries.
    if told.len() < 256 && told.insert(name.to_owned()) {
        log::info!(
            "backend/{}: left alone: no kind of device that devd knows",
            name.escape_ascii()
        );
    }
}
