//! The commands of `CONTROL`, as far as a store in memory can carry them out.
//!
//! Source: the answers of the C xenstored 4.17. Its other commands write files or replace the
//! daemon (`live-update`, `logfile`, `memreport`, `quota-soft`). The embedded store refuses those
//! with `EINVAL`, and `help` does not list them.

use std::fmt::Write;

use xs_proto::ErrorCode;

use super::quota::Quota;
use super::state::State;

const HELP: &str =
    "check\t\nlog\ton|off\nprint\t<string>\nquota\t[set <name> <val>|<domid>]\nhelp\t\n";

impl State {
    /// Carries out a command, whose words each end with a NUL; returns the answer's payload.
    pub(super) fn control(&mut self, command: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let words = command.strip_suffix(b"\0").ok_or(ErrorCode::Inval)?;
        let words = str::from_utf8(words).map_err(|_| ErrorCode::Inval)?;
        let words: Vec<&str> = words.split('\0').collect();
        let mut text = match words[..] {
            ["help"] => HELP.to_owned(),
            // The tree is always sound; there is no log, and nobody to print to.
            ["check"] | ["log", "on" | "off"] | ["print", _] => "OK".to_owned(),
            ["quota"] => self.quota.settings(),
            ["quota", "set", name, value] => {
                let value = value.parse().map_err(|_| ErrorCode::Inval)?;
                *self.quota.named(name).ok_or(ErrorCode::Inval)? = value;
                "OK".to_owned()
            }
            ["quota", domid] => self.usage(domid.parse().map_err(|_| ErrorCode::Inval)?)?,
            _ => return Err(ErrorCode::Inval),
        };
        text.push('\0');
        Ok(text.into_bytes())
    }

    /// The counts of a domain that its quotas limit, as text.
    fn usage(&mut self, domid: u16) -> Result<String, ErrorCode> {
        let domain = self.domains.introduced(domid).ok_or(ErrorCode::NoEnt)?;
        let mut text = format!("Domain {domid}:\n");
        for (name, count) in [
            ("nodes", domain.nodes),
            ("watches", domain.watches),
            ("transactions", domain.transactions),
        ] {
            let _ = writeln!(text, "{name:<16}: {count:8}");
        }
        Ok(text)
    }
}

impl Quota {
    /// The limit that `quota set` knows by this name.
    fn named(&mut self, name: &str) -> Option<&mut usize> {
        match name {
            "nodes" => Some(&mut self.nodes),
            "watches" => Some(&mut self.watches),
            "transactions" => Some(&mut self.transactions),
            "outstanding" => Some(&mut self.outstanding),
            "transaction-nodes" => Some(&mut self.transaction_nodes),
            _ => None,
        }
    }

    fn settings(&self) -> String {
        let mut text = String::from("Quota settings:\n");
        for (name, limit, what) in [
            ("nodes", self.nodes, "Nodes per domain"),
            ("watches", self.watches, "Watches per domain"),
            ("transactions", self.transactions, "Transactions per domain"),
            ("outstanding", self.outstanding, "Outstanding requests per domain"),
            (
                "transaction-nodes",
                self.transaction_nodes,
                "Max. number of accessed nodes per transaction",
            ),
        ] {
            let _ = writeln!(text, "{name:<17}: {limit:8} {what}");
        }
        text
    }
}
