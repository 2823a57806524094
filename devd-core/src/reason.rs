//! Why a device is not served.

/// Why a hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// The hook could not be started; the error number.
    Spawn(i32),
    /// The hook exited with this code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// The hook did not end in time and was killed.
    TimedOut,
    /// The hook wrote the failure into `hotplug-status`.
    Reported,
    /// The hook ended without a mark, and the device needs one.
    Silent,
}

/// Why there is no QEMU for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QemuFailure {
    /// No QEMU is configured, or the configured one is not there.
    NoQemu,
    /// The store does not let the driver domain write `libxl` or `device-model`: the domain's
    /// config lacks `driver_domain=1`.
    NotDriverDomain,
    /// The store refused for another reason; an error number.
    Store(i32),
    /// QEMU could not be started; the error number.
    Spawn(i32),
    /// QEMU exited with this code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// QEMU was not ready in time.
    TimedOut,
    /// QEMU is gone, and its exit status is unknown.
    Vanished,
    /// A share of the guest has lost its QEMU. A new one would take the share up again, and
    /// carry out requests a second time; there will be one when the share is gone.
    LostShare,
}

/// Why a device is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The device has no `script` node.
    NoScript,
    /// The device is a network interface without a `type` node.
    NoType,
    /// Its hook failed.
    Hook(HookFailure),
    /// The guest's QEMU failed.
    Qemu(QemuFailure),
    /// The QEMU that had connected it has ended. A new one must not take it over: requests
    /// that the old one had begun would be carried out again.
    Lost,
}

/// The way in which a device that is not served can be helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another try, after 1, 2, 4 … 60 s.
    Time,
    /// Another value of this node of the device. The same value is not tried again.
    Node(Node),
    /// Another value of `script`, or a program that is installed: the daemon looks for the
    /// program after 1, 2, 4 … 60 s, and writes nothing as long as it is missing.
    Program,
    /// Another device. This one has to be detached.
    Detach,
}

/// A node that a hook needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// `script`.
    Script,
    /// `type`.
    Type,
    /// `gatewaydev`.
    Gatewaydev,
}

impl Reason {
    /// The remedy for this failure.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::NoScript => Remedy::Node(Node::Script),
            Self::NoType => Remedy::Node(Node::Type),
            Self::Hook(failure) => failure.remedy(),
            Self::Qemu(_) => Remedy::Time,
            Self::Lost => Remedy::Detach,
        }
    }
}

impl HookFailure {
    /// The remedy for this failure.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::BadName => Remedy::Node(Node::Script),
            Self::BadGateway => Remedy::Node(Node::Gatewaydev),
            Self::NotFound | Self::NotExecutable | Self::NoInterpreter => Remedy::Program,
            Self::Spawn(_)
            | Self::Exit(_)
            | Self::Signal(_)
            | Self::TimedOut
            | Self::Reported
            | Self::Silent => Remedy::Time,
        }
    }

    /// Is this known before anything is started?
    pub(crate) const fn is_before_start(self) -> bool {
        match self.remedy() {
            Remedy::Node(_) | Remedy::Program => true,
            Remedy::Time | Remedy::Detach => false,
        }
    }
}
