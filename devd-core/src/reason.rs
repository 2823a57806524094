//! Why a device is not served.

/// Why a hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookFailure {
    /// No hook of that name is in the configured directories.
    NotFound,
    /// The hook's file may not be executed. Told before anything is started.
    NotExecutable,
    /// The interpreter that the hook's first line names is missing. Told before anything is
    /// started.
    NoInterpreter,
    /// The value of `script` does not end in a file's name.
    BadName,
    /// The value of `gatewaydev` has a NUL in it, where the hook's environment would end it.
    BadGateway,
    /// It could not be started; the error number.
    Spawn(i32),
    /// It exited with this code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It did not end in time and was killed.
    TimedOut,
    /// It said so itself, in `hotplug-status`.
    Reported,
    /// It ended without a word, and the device needs one.
    Silent,
}

/// Why there is no QEMU for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFailure {
    /// No QEMU is configured, or the configured one is not there.
    NoQemu,
    /// The store does not let the driver domain write `libxl` or `device-model`: the domain's
    /// config lacks `driver_domain=1`.
    NotDriverDomain,
    /// The store refused for another reason; an error number.
    Store(i32),
    /// It could not be started; the error number.
    Spawn(i32),
    /// It exited with this code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was not ready in time.
    TimedOut,
    /// It is not there any more, and nobody saw it end.
    Vanished,
    /// A share of the guest has lost its QEMU. A new one would take the share up again, and
    /// carry out requests a second time; there will be one when the share is gone.
    LostShare,
}

/// Why a device is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has no `script` node.
    NoScript,
    /// It is a network interface and has no `type` node.
    NoType,
    /// Its hook failed.
    Hook(HookFailure),
    /// The guest's QEMU failed.
    Service(ServiceFailure),
    /// The QEMU that had connected it has ended. A new one must not take it over: requests
    /// that the old one had begun would be carried out again.
    Lost,
}

impl Reason {
    /// Can trying again help, with nothing changed in the store?
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::NoScript | Self::NoType | Self::Hook(HookFailure::BadName) | Self::Lost => false,
            Self::Hook(_) | Self::Service(_) => true,
        }
    }
}
