//! Random requests, the same for the same seed.

use xs_proto::{MessageType, PAYLOAD_MAX};

/// Domains that the script names: two that exist, and one that never does.
pub(crate) const GUESTS: [u16; 2] = [7, 8];
const NOBODY: u16 = 99;

/// Where each link leads: some are domain 0's sockets, then there is one for each guest.
pub(crate) const LINKS: [u16; 5] = [0, 0, 0, GUESTS[0], GUESTS[1]];

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// A step to take on both sides.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Requests sent together on one link.
    Requests(usize, Vec<Request>),
    /// A header that announces too much, on a link of domain 0: the daemon closes it.
    TooLong(usize),
    /// A link of domain 0 is closed by the client and opened anew.
    Reopen(usize),
    /// A guest shuts down, and is resumed.
    ShutDown(u16),
    /// A guest is destroyed, and one of the same number made.
    Renew(u16),
}

/// The transaction that a request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    Nothing,
    /// The `n`-th of those that are open on the link.
    Open(usize),
    /// A transaction that never was.
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kind: u32,
    pub(crate) within: Within,
    pub(crate) payload: Vec<u8>,
}

/// The next step, given how many transactions are open on each link.
pub(crate) fn next(random: &mut Random, open: &[usize]) -> Step {
    let link = random.below(LINKS.len());
    match random.below(1000) {
        900..905 => Step::Requests(random.below(3), vec![introduce(random)]),
        0..2 => Step::TooLong(random.below(LINKS.len() - GUESTS.len())),
        2..4 => Step::Reopen(random.below(LINKS.len() - GUESTS.len())),
        4..6 => Step::ShutDown(random.pick(&GUESTS)),
        6..9 => Step::Renew(random.pick(&GUESTS)),
        9..60 => {
            let count = 2 + random.below(5);
            let requests = (0..count).map(|_| request(random, link, open[link]));
            Step::Requests(link, requests.collect())
        }
        _ => Step::Requests(link, vec![request(random, link, open[link])]),
    }
}

fn request(random: &mut Random, link: usize, open: usize) -> Request {
    let domid = LINKS[link];
    let within = match random.below(100) {
        0..2 => Within::Unknown,
        2..60 if open > 0 => Within::Open(random.below(open)),
        _ => Within::Nothing,
    };
    let kind = random.pick(
        &[
            (20, MessageType::Write),
            (10, MessageType::Read),
            (6, MessageType::Mkdir),
            (9, MessageType::Rm),
            (6, MessageType::Directory),
            (3, MessageType::DirectoryPart),
            (5, MessageType::GetPerms),
            (10, MessageType::SetPerms),
            (10, MessageType::Watch),
            (6, MessageType::Unwatch),
            (5, MessageType::TransactionStart),
            (7, MessageType::TransactionEnd),
            (1, MessageType::GetDomainPath),
            (1, MessageType::IsDomainIntroduced),
            (1, MessageType::Control),
            (1, MessageType::SetTarget),
            (1, MessageType::Resume),
            (1, MessageType::Release),
        ]
        .into_iter()
        .flat_map(|(weight, kind)| std::iter::repeat_n(kind, weight))
        .collect::<Vec<_>>(),
    );
    if random.percent(1) {
        return odd(random, within);
    }
    let mut payload = payload(random, domid, kind);
    payload.truncate(PAYLOAD_MAX);
    let mut request = Request { kind: kind.to_wire(), within, payload };
    if random.percent(2) {
        spoil(random, kind, &mut request);
    }
    request
}

/// A request of a type that the daemon does not know, or one that is rarely sent.
fn odd(random: &mut Random, within: Within) -> Request {
    let kind = random.pick(&[15, 16, 20, 21, 23, 24, 25, 26, 27, 99, u32::MAX]);
    Request { kind, within, payload: b"\0".to_vec() }
}

/// Never together with other requests: INTRODUCE discards the replies that a guest has not read.
fn introduce(random: &mut Random) -> Request {
    let payload = random.pick(&[
        &b"7\x001\x001\0"[..],
        b"8\x001\x001\0x\0",
        b"99\x001\x001\0",
        b"7\x001\x000\0",
        b"8\x001\0",
    ]);
    let kind = MessageType::Introduce.to_wire();
    Request { kind, within: Within::Nothing, payload: payload.to_vec() }
}

fn payload(random: &mut Random, domid: u16, kind: MessageType) -> Vec<u8> {
    let strings = |strings: &[&[u8]]| {
        strings.iter().flat_map(|string| [*string, b"\0"]).collect::<Vec<_>>().concat()
    };
    match kind {
        MessageType::Write => [path(random), b"\0".to_vec(), value(random)].concat(),
        MessageType::Rm if domid == 0 => strings(&[&removable(random)]),
        MessageType::SetPerms => {
            let path = match random.below(12) {
                0 if domid == 0 => {
                    random.pick(&[&b"@releaseDomain"[..], b"@introduceDomain"]).to_vec()
                }
                // Not the root: the daemon removes it with the domain that owns it.
                _ => match path(random) {
                    path if path == b"/" || path.starts_with(b"@") => b"/t".to_vec(),
                    path => path,
                },
            };
            [path, b"\0".to_vec(), permissions(random, domid)].concat()
        }
        MessageType::DirectoryPart => {
            let offset = random.pick(&["0", "1", "2", "4", "1000"]);
            strings(&[&path(random), offset.as_bytes()])
        }
        MessageType::Watch | MessageType::Unwatch => {
            let special = ["@releaseDomain", "@introduceDomain", "@bogus", "@", "/"];
            let path = if random.percent(20) {
                random.pick(&special).as_bytes().to_vec()
            } else {
                path(random)
            };
            strings(&[&path, random.pick(&[&b""[..], b"t", b"u"])])
        }
        MessageType::TransactionStart => random.pick(&[&b"\0"[..], b""]).to_vec(),
        MessageType::TransactionEnd => random.pick(&[&b"T\0"[..], b"T\0", b"T\0", b"F\0"]).to_vec(),
        MessageType::Control => random
            .pick(&[
                &b"help\0"[..],
                b"check\0",
                b"log\0on\0",
                b"log\0off\0",
                b"log\0",
                b"print\0text\0",
                b"print\0",
                b"help",
                b"bogus\0",
            ])
            .to_vec(),
        MessageType::SetTarget => {
            // A target that succeeds has a test of its own: the daemon never releases a domain
            // that is the target of another, or of itself.
            strings(&random.pick(&[[b"7", &b"99"[..]], [b"99", b"7"]]))
        }
        // Of those that exist a step of its own makes an end.
        MessageType::Release => strings(&[random.pick(&[&b"99"[..], b"0"])]),
        MessageType::GetDomainPath | MessageType::IsDomainIntroduced | MessageType::Resume => {
            strings(&[random.pick(&[0, 7, 8, NOBODY]).to_string().as_bytes()])
        }
        _ => strings(&[&path(random)]),
    }
}

/// Cuts the NUL off, or puts something behind it, where the daemon checks that.
fn spoil(random: &mut Random, kind: MessageType, request: &mut Request) {
    let checked = matches!(
        kind,
        MessageType::Watch
            | MessageType::Unwatch
            | MessageType::SetPerms
            | MessageType::DirectoryPart
            | MessageType::TransactionEnd
            | MessageType::GetDomainPath
            | MessageType::IsDomainIntroduced
    );
    if checked {
        match random.below(4) {
            0 => drop(request.payload.pop()),
            1 => request.payload.extend_from_slice(b"junk"),
            2 => request.payload.extend_from_slice(b"x\0"),
            _ => request.payload.clear(),
        }
    }
}

const ROOTS: [&str; 12] = [
    "/t",
    "/s",
    "/t",
    "/s",
    "/local/domain/7/data",
    "/local/domain/8/data",
    "/local/domain/7",
    "/local/domain/8/ro",
    "data",
    "data",
    "ro",
    "/nowhere/at/all",
];

fn path(random: &mut Random) -> Vec<u8> {
    if random.percent(4) {
        return bad_path(random);
    }
    if random.percent(2) {
        return random.pick(&[&b"/"[..], b"/tool", b"/local", b"/local/domain"]).to_vec();
    }
    let root = random.pick(&ROOTS);
    below(random, root, 0)
}

/// A path that the toolstack may remove without an end to the whole test.
fn removable(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0 => bad_path(random),
        1 => b"/".to_vec(),
        2 => random.pick(&[&b"/s"[..], b"/t"]).to_vec(),
        _ => {
            let root = random.pick(&ROOTS);
            below(random, root, 1)
        }
    }
}

fn below(random: &mut Random, root: &str, at_least: usize) -> Vec<u8> {
    let mut path = root.as_bytes().to_vec();
    for _ in 0..at_least + random.below(4 - at_least) {
        path.push(b'/');
        path.extend_from_slice(random.pick(&[&b"a"[..], b"b", b"c", b"a-long_Name@1"]));
    }
    path
}

fn bad_path(random: &mut Random) -> Vec<u8> {
    match random.below(14) {
        0 => Vec::new(),
        1 => b"//".to_vec(),
        2 => b"/t/".to_vec(),
        3 => b"/t//a".to_vec(),
        4 => b"/t/a b".to_vec(),
        5 => b"/t/\xc3\xa4".to_vec(),
        6 => b"/t/a.b".to_vec(),
        7 => b"@releaseDomain".to_vec(),
        8 => b"data/".to_vec(),
        9 => [b"/t/", &*vec![b'a'; 2044 + random.below(3)]].concat(),
        10 => [&b"/local/domain/7/"[..], &vec![b'a'; 2047 + random.below(3)]].concat(),
        11 => vec![b'r'; 2047 + random.below(3)],
        12 => vec![b'/'; 2],
        _ => b"/t/a\n".to_vec(),
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(40) {
        0 => 900 + random.below(20),
        1 => 1990 + random.below(40),
        2 => 2048,
        3 => 1016 + random.below(3),
        _ => random.below(12),
    };
    (0..len).map(|_| random.pick(b"v\0\n\xff0")).collect()
}

fn permissions(random: &mut Random, domid: u16) -> Vec<u8> {
    let mut list = Vec::new();
    let owner = if random.percent(70) { domid } else { random.pick(&[0, 7, 8, NOBODY]) };
    let count = if random.percent(10) { 4 + random.below(4) } else { random.below(3) };
    for at in 0..=count {
        let domid = if at == 0 { owner } else { random.pick(&[0, 7, 8, NOBODY]) };
        let letter = random.pick(&['n', 'r', 'w', 'b', 'r', 'b']);
        list.extend_from_slice(format!("{letter}{domid}\0").as_bytes());
    }
    if random.percent(3) {
        list = random.pick(&[&b""[..], b"\0", b"x0\0", b"n\0", b"7\0", b"n0\0\0"]).to_vec();
    }
    list
}
