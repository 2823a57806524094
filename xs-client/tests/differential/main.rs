//! The embedded store against the real one.
//!
//! The same random requests go to the C xenstored 4.17 of Debian 12 and to the embedded
//! store: from three connections of domain 0 and from two unprivileged domains. After each
//! step every link must have received the same messages in the same order, and from time to
//! time the whole tree must be the same.
//!
//! Values that differ by nature are made equal before the comparison:
//!
//! | what | how, and why |
//! |---|---|
//! | the number of a transaction | any number is equal to any; each side is spoken to with its own |
//! | the generation in `DIRECTORY_PART` | left out: the daemon's other work changes it |
//! | the text of `CONTROL help` | any text: the embedded store has fewer commands |
//! | events of requests sent together | compared as sets: whether equal events still wait together, and merge, depends on when the daemon writes |
//! | events of the end of a domain | compared as sets: the order in which its nodes are found differs |
//! | transactions while a domain ends | ended before: a node changed in one that stays open gives a later domain of the same number what the old one was allowed, in the daemon; the embedded store never does that |
//! | a guest made right after a change | the toolstack changes a node of no meaning before: the last change counts as younger than the guest, and its node allows it what it allowed the one before; never so in the embedded store |
//!
//! The script leaves out, since there is nothing to compare with:
//!
//! * A path without its NUL, or with something behind it, in the requests that have nothing but
//!   a path; `SET_PERMS` of a special path by one who may not, or of one that is not known. The
//!   daemon answers with whatever error came before, of whomever. When that is none it does not
//!   answer at all and dies (`consider_message: Assertion conn->in == NULL`). The embedded store
//!   answers `EINVAL`, or `EACCES`.
//! * Numbers that are not plain decimal ones of the range of their field: `atoi` takes them all
//!   for something.
//! * A root that a guest owns, and a guest with a target that exists: the daemon removes the
//!   one with its owner and never lets go of the other.
//!
//! A run is the same each time. `DIFFERENTIAL_SEED` makes it another, `DIFFERENTIAL_STEPS` a
//! longer one; a failure prints both the seed and the last steps.

mod daemon;
mod link;
mod ring;
mod script;
mod sides;

use std::collections::VecDeque;

use xs_client::embedded::Quota;
use xs_proto::MessageType;

use script::{Random, Request, Step, Within};
use sides::{Received, Side, is_event};

#[test]
#[ignore = "needs the real xenstored: run .ci/test"]
fn random_requests_with_the_default_quotas() {
    compare(&Quota::default(), 10_000);
}

#[test]
#[ignore = "needs the real xenstored: run .ci/test"]
fn random_requests_with_quotas_that_are_soon_reached() {
    let quota = Quota {
        nodes: 12,
        node_size: 1100,
        watches: 4,
        transactions: 2,
        transaction_nodes: 6,
        permissions: 3,
        ..Quota::default()
    };
    compare(&quota, 10_000);
}

#[test]
#[ignore = "needs the real xenstored: run .ci/test"]
fn a_guest_has_the_rights_of_its_target_too() {
    let (toolstack, guest) = (0, guest());
    let request = |kind, payload: &[u8]| request(kind, Within::Nothing, payload);
    let steps = [
        (guest, request(MessageType::Watch, b"/local/domain/8/data\0t\0")),
        (guest, request(MessageType::Write, b"/local/domain/8/data/before\0x")),
        (toolstack, request(MessageType::SetTarget, b"7\x008\0")),
        (guest, request(MessageType::Write, b"/local/domain/8/data/after\0x")),
        (guest, request(MessageType::GetPerms, b"/local/domain/8/data/after\0")),
        (guest, request(MessageType::Read, b"/local/domain/8/ro\0")),
        (guest, request(MessageType::Write, b"/local/domain/8/ro\0x")),
        (guest, request(MessageType::SetPerms, b"/local/domain/8/data\0n8\0r7\0")),
        (guest, request(MessageType::SetPerms, b"/local/domain/8/data\0n7\0")),
        (guest, request(MessageType::Control, b"help\0")),
        (toolstack, request(MessageType::Write, b"/local/domain/8/data\0y")),
        (toolstack, request(MessageType::SetTarget, b"7\x007\0")),
        (guest, request(MessageType::Write, b"/local/domain/8/data/late\0x")),
    ];
    directed(steps.map(|(link, request)| Step::Requests(link, vec![request])));
}

#[test]
#[ignore = "needs the real xenstored: run .ci/test"]
fn the_default_limits_are_the_daemons() {
    let starts = (0..13).map(|_| request(MessageType::TransactionStart, Within::Nothing, b"\0"));
    let ends = (0..13).map(|_| request(MessageType::TransactionEnd, Within::Open(0), b"F\0"));
    let watches = (0..140).map(|i| {
        let payload = format!("data/{i}\0t\0");
        request(MessageType::Watch, Within::Nothing, payload.as_bytes())
    });
    let reads = (0..1030).map(|i| {
        let payload = format!("data/{}/{}\0", i / 50, i % 50);
        request(MessageType::Read, Within::Open(0), payload.as_bytes())
    });
    // Small directories: the daemon is slow at large ones.
    let nodes = (0..1010).map(|i| {
        let payload = format!("data/{}/{}\0x", i / 50, i % 50);
        request(MessageType::Write, Within::Nothing, payload.as_bytes())
    });
    let steps = starts.chain(reads).chain(ends).chain(nodes).chain(watches);
    directed(steps.map(|request| Step::Requests(guest(), vec![request])));
}

fn guest() -> usize {
    script::LINKS.iter().position(|domid| *domid == 7).expect("a guest")
}

fn request(kind: MessageType, within: Within, payload: &[u8]) -> Request {
    Request { kind: kind.to_wire(), within, payload: payload.to_vec() }
}

/// Runs steps written by hand. Steps in a transaction that is not open are left out.
fn directed(steps: impl IntoIterator<Item = Step>) {
    let quota = Quota::default();
    let (mut real, mut embedded) = (Side::real(&quota), Side::embedded(&quota));
    for step in steps {
        if let Step::Requests(link, requests) = &step
            && requests.iter().any(|request| request.within == Within::Open(0))
            && real.open()[*link] == 0
        {
            continue;
        }
        assert_eq!(run(&mut real, &step), run(&mut embedded, &step), "{}", show(&step));
    }
    assert_eq!(real.dump(), embedded.dump());
}

/// The last steps, to be shown if the test fails.
struct History(VecDeque<String>);

impl History {
    const SHOWN: usize = 60;

    fn push(&mut self, line: String) {
        if self.0.len() == Self::SHOWN {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|line| println!("{line}"));
        }
    }
}

/// After how many steps the trees are compared.
const DUMP: usize = 250;

fn compare(quota: &Quota, default_steps: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(1);
    let steps = number("DIFFERENTIAL_STEPS").map_or(default_steps, |n| n.try_into().unwrap());
    println!("DIFFERENTIAL_SEED={seed}");

    let mut random = Random(seed);
    let (mut real, mut embedded) = (Side::real(quota), Side::embedded(quota));
    let mut history = History(VecDeque::new());
    for at in 0..steps {
        let open = real.open();
        assert_eq!(open, embedded.open(), "open transactions, before step {at}");
        let step = script::next(&mut random, &open);
        history.push(format!("step {at}: {}", show(&step)));

        let (expected, got) = (run(&mut real, &step), run(&mut embedded, &step));
        for (link, (expected, got)) in expected.iter().zip(&got).enumerate() {
            if expected != got {
                history.push(format!("link {link}, real:     {expected}"));
                history.push(format!("link {link}, embedded: {got}"));
            }
        }
        assert!(expected == got, "step {at} differs");
        if at % DUMP == DUMP - 1 {
            let (expected, got) = (real.dump(), embedded.dump());
            if let Some((expected, got)) = expected.iter().zip(&got).find(|(a, b)| a != b) {
                history.push(format!("node, real:     {expected:?}"));
                history.push(format!("node, embedded: {got:?}"));
            }
            assert!(expected == got, "the trees after step {at} differ");
        }
    }
}

/// Takes a step and returns a comparable text of its result for each link.
fn run(side: &mut Side, step: &Step) -> Vec<String> {
    let (received, ordered) = match step {
        Step::Requests(link, requests) => (side.request(*link, requests), requests.len() == 1),
        Step::TooLong(link) => (side.too_long(*link), true),
        Step::Reopen(link) => {
            side.reopen(*link);
            return Vec::new();
        }
        Step::ShutDown(domid) => (side.shut_down(*domid), true),
        Step::Renew(domid) => (side.renew(*domid), false),
    };
    received.into_iter().map(|received| normal(received, ordered)).collect()
}

fn normal(received: Received, ordered: bool) -> String {
    let mut events: Vec<String> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for message in received.messages {
        if is_event(&message) {
            let header = message.header;
            let ids = (header.req_id, header.tx_id);
            let line = format!("event {ids:?} {}", message.payload.escape_ascii());
            if ordered {
                lines.push(line)
            } else {
                events.push(line)
            }
            continue;
        }
        let at = message.header.req_id as usize - 1;
        let mut kind = message.header.message_type();
        let mut payload = message.payload;
        match kind {
            Some(MessageType::TransactionStart) => payload = b"a number".to_vec(),
            Some(MessageType::DirectoryPart) => {
                let end = payload.iter().position(|byte| *byte == 0).unwrap();
                payload.drain(..end);
            }
            Some(MessageType::Control) => payload = b"some text".to_vec(),
            _ => {}
        }
        let within = message.header.tx_id != 0;
        lines.push(format!("{at} {:?} {within} {}", kind.take(), payload.escape_ascii()));
    }
    events.sort();
    events.dedup();
    lines.extend(events);
    if received.closed {
        lines.push("closed".into());
    }
    lines.join("; ")
}

fn show(step: &Step) -> String {
    let Step::Requests(link, requests) = step else { return format!("{step:?}") };
    let show = |request: &Request| {
        let kind = MessageType::from_wire(request.kind);
        let payload = request.payload.escape_ascii().to_string();
        let short = payload.get(..200).unwrap_or(&payload);
        format!("{kind:?} {:?} {short} ({} bytes)", request.within, request.payload.len())
    };
    let requests: Vec<String> = requests.iter().map(show).collect();
    format!("link {link}, domain {}: {}", script::LINKS[*link], requests.join(" | "))
}
