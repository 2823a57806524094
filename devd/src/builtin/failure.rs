//! Why a built-in hook failed, in words.

use std::io;

use nix::errno::Errno;

/// What was being done to what, and why it did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// A step that the kernel refuses: "cannot STEP: what the error means (its name)".
    pub(crate) fn step(step: &str, error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => Self(format!("cannot {step}: {} ({errno:?})", errno.desc())),
            None => Self(format!("cannot {step}: {error}")),
        }
    }

    pub(crate) fn words(&self) -> &str {
        &self.0
    }
}

/// Names the step that failed.
pub(crate) trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::step(&step(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_step_says_what_and_why_by_name() {
        let refused: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EBUSY));
        let failure = refused.step(|| "put vif3.0 into bridge xenbr0".into()).unwrap_err();
        assert_eq!(
            failure.words(),
            "cannot put vif3.0 into bridge xenbr0: Device or resource busy (EBUSY)"
        );
    }
}
