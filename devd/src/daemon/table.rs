//! SIGUSR1: all devices, and how far each is, in the log.

use devd_core::{DeviceKey, Node, Phase, QemuState, Reason, Remedy, Run};

use super::Daemon;

impl Daemon<'_> {
    /// A line for the daemon, then one for each device.
    pub(super) fn log_devices(&self) {
        let mut devices: Vec<_> = self.dispatcher.devices().collect();
        devices.sort_unstable_by_key(|(key, _)| *key);
        let qemus = |state| matches!(state, QemuState::Starting | QemuState::Running);
        let qemus = self.dispatcher.qemus().filter(|(_, state)| qemus(*state)).count();
        log::info!(
            "devd {}, process {}, {} xenstore: {}, {} at work, {} for guests",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            if self.reconnect.is_none() { "connected to" } else { "without a connection to" },
            count(devices.len(), "device"),
            count(self.dispatcher.running_hooks(), "hook"),
            count(qemus, "QEMU"),
        );
        for (key, phase) in devices {
            log::info!("{key}: {}", self.standing(key, phase));
        }
    }

    fn standing(&self, key: DeviceKey, phase: Phase) -> String {
        let text = match phase {
            Phase::Waiting => "waits for its backend in the kernel",
            Phase::Attaching(Run::Queued) => "waits until fewer hooks run (--max-hooks)",
            Phase::Attaching(Run::Running) => "its hook runs",
            Phase::Attaching(Run::Stopping) => "its hook was told to end",
            Phase::Attaching(Run::Ended) => "its hook has ended",
            Phase::AwaitingQemu => "waits for the QEMU of its guest",
            Phase::Attached => "served",
            Phase::Detaching(Run::Queued) => "closed; its removal hook waits for its turn",
            Phase::Detaching(Run::Running) => "closed; its removal hook runs",
            Phase::Detaching(Run::Stopping) => "closed; its removal hook was told to end",
            Phase::Detaching(Run::Ended) => "closed; its removal hook has ended",
            Phase::Lingering => "closed; its directory stays a moment longer (--linger)",
            Phase::Removing => "closed; its directory is being removed",
            Phase::Failed(reason) => {
                let script = self.dispatcher.script(key).unwrap_or_default();
                let text = self.surroundings.reason(reason, script);
                return format!("not served: {text}{}", self.next_try(key, reason));
            }
        };
        text.into()
    }

    /// The end of a message about a failure: the number of the try, and when the next begins.
    pub(super) fn next_try(&self, key: DeviceKey, reason: Reason) -> String {
        let retry = self.dispatcher.retry(key);
        let next = retry.and_then(|retry| retry.next).map(|next| {
            let millis = next.as_millis().saturating_sub(self.clock.now().as_millis());
            millis.div_ceil(1000)
        });
        let failures = retry.map_or(0, |retry| retry.failures);
        match (reason.remedy(), next) {
            (Remedy::Time, Some(seconds)) => {
                format!("; try {failures} failed, the next begins in {seconds} s")
            }
            (Remedy::Program, Some(seconds)) => format!("; looked for again in {seconds} s"),
            (Remedy::Node(node), _) => {
                let node = match node {
                    Node::Script => "script",
                    Node::Type => "type",
                    Node::Gatewaydev => "gatewaydev",
                };
                format!("; tried again when its {node} node changes")
            }
            (Remedy::Time | Remedy::Program, None) | (Remedy::Detach, _) => String::new(),
        }
    }
}

/// A number of things: "1 device", "2 devices".
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0, 1, 2].map(|number| count(number, "hook")), ["0 hooks", "1 hook", "2 hooks"]);
    }
}
