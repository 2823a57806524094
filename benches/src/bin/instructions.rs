//! How many instructions the event path, the registry and the dispatcher take, counted by
//! valgrind, compared with what is written down.
//!
//!     cargo run --release -p benches --bin instructions             compares: 1 if it is more
//!     cargo run --release -p benches --bin instructions -- update   writes the counts down
//!
//! Counts do not depend on how fast the machine is or what else it does, as times do. They do
//! depend on the compiler, and a little on the C library's choice of a `memcpy`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use benches::life::Lives;
use benches::{Shuffled, any_device, devices, events};
use devd_core::{BackendPath, Domid, Registry};

/// What does a thing so many times, and how often a measurement does it.
type Workload = (&'static str, fn(u32), u32);

const WORKLOADS: [Workload; 4] = [
    ("event path", parse, 20_000),
    ("look up", look_up, 20_000),
    ("remove and insert", renew, 10_000),
    ("four device lives", live, 200),
];

const GUESTS: Domid = 100;

fn parse(count: u32) {
    let paths = events::relative(4096);
    for path in paths.iter().cycle().take(count as usize) {
        black_box(BackendPath::parse(black_box(path.as_bytes())));
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    for key in devices(GUESTS) {
        registry.insert(key);
    }
    registry
}

fn look_up(count: u32) {
    let (registry, mut order) = (registry(), Shuffled::new(1));
    (0..count).for_each(|_| assert!(registry.find(any_device(GUESTS, &mut order)).is_some()));
}

fn renew(count: u32) {
    let (mut registry, mut order) = (registry(), Shuffled::new(1));
    for _ in 0..count {
        let key = any_device(GUESTS, &mut order);
        let index = registry.find(key).expect("it is there");
        registry.remove(index);
        registry.insert(key);
    }
}

fn live(count: u32) {
    let (mut lives, mut order) = (Lives::of(GUESTS), Shuffled::new(1));
    for _ in 0..count {
        lives.renew(Domid::try_from(order.below(GUESTS.into())).expect("it is below") + 1);
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["update"] => update(),
        ["run", name, count] => run(name, count),
        _ => {
            eprintln!("usage: instructions [update]");
            ExitCode::from(2)
        }
    }
}

/// What valgrind is to look at.
fn run(name: &str, count: &str) -> ExitCode {
    let workload = WORKLOADS.iter().find(|(known, ..)| *known == name);
    let (Some((_, workload, _)), Ok(count)) = (workload, count.parse()) else {
        eprintln!("instructions: no such workload, or no number: {name} {count}");
        return ExitCode::from(2);
    };
    workload(count);
    ExitCode::SUCCESS
}

/// What stands in the file.
struct Record {
    rustc: String,
    architecture: String,
    /// More by so many in a hundred is too many.
    tolerance: f64,
    counts: BTreeMap<String, f64>,
}

const TOLERANCE: f64 = 5.0;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

impl Record {
    fn count() -> Result<Self, String> {
        let mut counts = BTreeMap::new();
        for (name, _, times) in WORKLOADS {
            // What starting takes is in both.
            let (once, twice) = (instructions(name, times)?, instructions(name, 2 * times)?);
            counts.insert(name.to_owned(), ((twice - once) / f64::from(times)).round());
        }
        Ok(Self {
            rustc: env!("RUSTC_VERSION").to_owned(),
            architecture: env::consts::ARCH.to_owned(),
            tolerance: TOLERANCE,
            counts,
        })
    }

    fn read() -> Result<Self, String> {
        let path = file();
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with(['#', '['])) {
            if let Some((name, value)) = line.split_once(" = ") {
                values
                    .insert(name.trim_matches('"').to_owned(), value.trim_matches('"').to_owned());
            }
        }
        let mut take = |name: &str| {
            values.remove(name).ok_or_else(|| format!("{} has no {name}", path.display()))
        };
        let (rustc, architecture) = (take("rustc")?, take("architecture")?);
        let number = |name: &str, value: &str| {
            value.parse().map_err(|_| format!("{}: {name} is no number", path.display()))
        };
        let tolerance = number("tolerance", &take("tolerance")?)?;
        let counts = values.iter().map(|(name, value)| Ok((name.clone(), number(name, value)?)));
        let counts = counts.collect::<Result<_, String>>()?;
        Ok(Self { rustc, architecture, tolerance, counts })
    }

    fn text(&self) -> String {
        let Self { rustc, architecture, tolerance, counts } = self;
        let mut text = format!(
            "# Instructions that each thing takes once, by valgrind.\n\
             # Written by: cargo run --release -p benches --bin instructions -- update\n\
             rustc = \"{rustc}\"\narchitecture = \"{architecture}\"\n\
             # More by so many percent fails.\ntolerance = {tolerance}\n\n[instructions]\n"
        );
        for (name, count) in counts {
            let _ = writeln!(text, "\"{name}\" = {count}");
        }
        text
    }
}

/// All that the program executes.
fn instructions(name: &str, count: u32) -> Result<f64, String> {
    let own = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["run", name, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start (Debian: valgrind): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.and_then(|(_, count)| count.trim().parse().ok()) {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind failed ({}): {said}", output.status)),
    }
}

fn update() -> ExitCode {
    match Record::count().and_then(|record| {
        print!("{}", record.text());
        fs::write(file(), record.text()).map_err(|e| format!("{}: {e}", file().display()))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn compare() -> ExitCode {
    let (was, is) = match Record::read().and_then(|was| Ok((was, Record::count()?))) {
        Ok(records) => records,
        Err(error) => return failed(&error),
    };
    if was.architecture != is.architecture {
        return failed(&format!("counts are of {}, this is {}", was.architecture, is.architecture));
    }
    let mut more = false;
    for (name, count) in &is.counts {
        let Some(before) = was.counts.get(name) else {
            println!("{name}: {count}, and nothing to compare it with: update");
            more = true;
            continue;
        };
        let change = (count / before - 1.0) * 100.0;
        let verdict = if change > was.tolerance {
            more = true;
            "too many"
        } else if change < -was.tolerance {
            "fewer: update, so that it stays so"
        } else {
            "as before"
        };
        println!("{name}: {count} instructions, were {before} ({change:+.1} %): {verdict}");
    }
    let other_compiler = was.rustc != is.rustc;
    if other_compiler {
        println!("The counts are of {}, this is {}.", was.rustc, is.rustc);
    }
    match (more, other_compiler) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => failed(
            "the compiler may be the reason: if the counts do not change with the old one, \
             update them with the new one",
        ),
        (true, false) => failed(
            "something got slower: mend it or, if that is what it costs, \
             `cargo run --release -p benches --bin instructions -- update`",
        ),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("instructions: {why}");
    ExitCode::FAILURE
}
