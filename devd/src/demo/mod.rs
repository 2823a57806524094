//! The demo.
use crate::cli::DemoOptions;
use std::process::ExitCode;
pub(crate) fn run(_options: DemoOptions) -> ExitCode {
    ExitCode::FAILURE
}
