//! `devd`: the device daemon of Xen driver domains.
//!
//! A reader follows an event from the store's file descriptor to the hook in this order:
//! [`daemon`] (the loop, one turn of it in `turn`), `xs_client::Client` (bytes to events), `devd_core::Dispatcher` (what
//! is to be done), then [`executor`] (what the store is asked and told), [`hooks`], [`builtin`]
//! and [`qemu`] (what is run).

mod builtin;
mod choice;
mod cli;
mod clock;
mod daemon;
mod daemonize;
#[cfg(feature = "demo")]
mod demo;
mod descriptor;
mod dry_run;
mod executor;
mod hook;
mod hooks;
mod journal;
mod lock_file;
mod orphans;
mod output;
mod pidfile;
mod poller;
mod process;
mod qemu;
mod readiness;
mod removal;
mod run_dir;
mod scan;
mod shown;
mod standard_error;
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod static_libc;
mod store_lock;
mod token;
mod words;
mod xl_devd;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Help) => {
            print!("{}", cli::HELP.concat());
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("devd {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Run(options)) => daemonize::run(&options),
        #[cfg(feature = "demo")]
        Ok(Command::Demo(options)) => demo::run(options),
        Err(error) => {
            eprintln!("devd: {error}\nTry `devd --help`.");
            ExitCode::from(cli::EXIT_USAGE)
        }
    }
}
