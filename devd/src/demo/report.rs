//! How it went, as tables.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use devd_core::Kind;

use super::daemon_process::Usage;
use super::life::Life;
use super::toolstack::DEVICES;
use crate::cli::Options;

/// So many guests are shown device by device. Of more, the first few are, and all failures.
const WHOLE: usize = 8;
const FIRST: usize = 3;

/// The lives of all devices, those of a guest together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    pub(super) lives: &'a [Life],
}

/// What the daemon took for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Devices whose life was seen to its end.
    pub(super) devices: usize,
    /// Requests that the daemon made to the store, if they could be counted.
    pub(super) requests: Option<u64>,
    pub(super) usage: Usage,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.lives.len() <= WHOLE * DEVICES;
        let shown = if whole { self.lives.len() } else { FIRST * DEVICES };
        let (first, others) = self.lives.split_at(shown);
        let failures = others.iter().filter(|life| life.failure.is_some());
        writeln!(
            f,
            "{:<18} {:<16} {:>12} {:>12}  outcome\n{:<18} {:<16} {:>12} {:>12}",
            "device", "backend's", "created to", "detached", "", "states", "connected", "to gone"
        )?;
        first.iter().chain(failures).try_for_each(|life| self.row(f, life))?;
        if !whole {
            writeln!(f, "and so on.\n")?;
            self.summary(f)?;
        }
        let linger = Options::default().linger.as_millis();
        writeln!(
            f,
            "\nA closed device's directory is kept for {linger} ms, for the toolstack to see it."
        )
    }
}

impl Report<'_> {
    /// How many devices have not gone the whole way.
    pub(super) fn failures(&self) -> usize {
        self.lives.iter().filter(|life| life.failure.is_some()).count()
    }

    fn row(self, f: &mut fmt::Formatter<'_>, life: &Life) -> fmt::Result {
        let name = life.key.to_string();
        let name = name.strip_prefix("backend/").unwrap_or(&name);
        let mut states = String::new();
        for state in &life.states {
            write!(states, "{state} ")?;
        }
        states.push_str(if life.detach.is_some() { "gone" } else { "" });
        let outcome = life.failure.as_deref().map_or("ok".into(), |why| format!("FAILED: {why}"));
        let (attach, detach) = (millis(life.attach), millis(life.detach));
        writeln!(f, "{name:<18} {states:<16} {attach:>12} {detach:>12}  {outcome}")
    }

    fn summary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<6} {:>8}   {:>31}   {:>31}\n{:<6} {:>8}   {:>9}  {:>9}  {:>9}   {:>9}  {:>9}  {:>9}",
            "kind",
            "devices",
            "created to connected",
            "detached to gone",
            "",
            "",
            "p50",
            "p99",
            "max",
            "p50",
            "p99",
            "max"
        )?;
        for kind in [Kind::Vif, Kind::Vbd, Kind::Qdisk] {
            let lives = || self.lives.iter().filter(|life| life.key.kind == kind);
            let attach = spread(lives().filter_map(|life| life.attach).collect());
            let detach = spread(lives().filter_map(|life| life.detach).collect());
            write!(f, "{:<6} {:>8}", kind.name(), lives().count())?;
            for [p50, p99, max] in [attach, detach] {
                write!(f, "   {:>9}  {:>9}  {:>9}", millis(p50), millis(p99), millis(max))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = self.devices.max(1) as f64;
        let mut facts = Vec::new();
        if let Some(requests) = self.requests {
            facts.push(format!("{:.1} requests to the store a device", requests as f64 / devices));
        }
        if let Some(cpu) = self.usage.cpu {
            let millis = cpu.as_secs_f64() * 1000.0 / devices;
            facts.push(format!("{millis:.2} ms of CPU time a device"));
        }
        if let Some(kib) = self.usage.memory {
            facts.push(format!("{:.1} MB of memory at the most", kib as f64 / 1024.0));
        }
        write!(f, "The daemon took {}.", facts.join(", "))
    }
}

/// The median, the 99th percentile and the longest.
fn spread(mut times: Vec<Duration>) -> [Option<Duration>; 3] {
    times.sort_unstable();
    // The smallest time that so many per cent of all do not exceed.
    let rank =
        |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1).copied();
    [rank(50), rank(99), times.last().copied()]
}

fn millis(time: Option<Duration>) -> String {
    time.map_or("-".into(), |time| format!("{:.1} ms", time.as_secs_f64() * 1000.0))
}

#[cfg(test)]
mod tests {
    use super::super::toolstack::devices;
    use super::*;

    fn life(domid: u16, number: usize) -> Life {
        Life {
            states: vec![1, 2, 4, 5, 6],
            attach: Some(Duration::from_micros(12_340)),
            detach: Some(Duration::from_millis(210)),
            ..Life::new(devices(domid)[number])
        }
    }

    fn lives(guests: u16) -> Vec<Life> {
        (2..2 + guests).flat_map(|domid| (0..3).map(move |number| life(domid, number))).collect()
    }

    #[test]
    fn few_guests_are_shown_device_by_device() {
        let text = Report { lives: &lives(1) }.to_string();
        let rows: Vec<&str> = text.lines().skip(2).take_while(|row| !row.is_empty()).collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("vif/2/0 "), "{text}");
        assert!(rows[0].contains("1 2 4 5 6 gone "), "{text}");
        assert!(rows[0].ends_with("12.3 ms     210.0 ms  ok"), "{text}");
    }

    #[test]
    fn of_many_guests_failures_are_shown_with_their_reasons() {
        let mut lives = lives(100);
        lives[200].failure = Some("no bridge".into());
        let report = Report { lives: &lives };
        let text = report.to_string();
        assert_eq!(report.failures(), 1);
        assert_eq!(text.matches("no bridge").count(), 1);
        assert!(text.contains("qdisk/68/51728"), "{text}");
        assert!(text.lines().count() < 25, "{text}");
        let vbd = text.lines().find(|line| line.starts_with("vbd ")).unwrap();
        assert!(vbd.contains(" 100 "), "{text}");
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let [p50, p99, max] = spread(times);
        assert_eq!((p50, p99, max), (ms(100), ms(198), ms(200)));
        assert_eq!(spread(vec![Duration::from_millis(7)]), [ms(7); 3]);
        assert_eq!(spread(Vec::new()), [None; 3]);
    }

    fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn only_what_was_measured_is_told() {
        let usage = Usage { memory: Some(3072), cpu: None };
        let cost = Cost { devices: 4, requests: Some(90), usage };
        assert_eq!(
            cost.to_string(),
            "The daemon took 22.5 requests to the store a device, 3.0 MB of memory at the most."
        );
    }
}
