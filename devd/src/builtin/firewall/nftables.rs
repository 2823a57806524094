//! Tables of nftables: made, taken away and read back by netlink.
//!
//! A table here is all that one interface has: one base chain, which the kernel runs for each
//! frame that the interface receives, and the chains that it leads to.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, whose numbers are big-endian, and
//! `nfnetlink.h`.

use std::io;

use nix::errno::Errno;

use crate::builtin::netlink::{
    MALFORMED, Message, NLM_F_APPEND, NLM_F_CREATE, Netlink, attributes, own_attributes,
};

/// `enum nfnl_batch_msg_types`.
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`, below the number of the subsystem.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_GETTABLE: u16 = NFT_MSG_NEWTABLE | 1;
const NFT_MSG_DELTABLE: u16 = NFT_MSG_NEWTABLE | 2;
const NFT_MSG_NEWCHAIN: u16 = NFT_MSG_NEWTABLE | 3;
const NFT_MSG_GETCHAIN: u16 = NFT_MSG_NEWTABLE | 4;
const NFT_MSG_NEWRULE: u16 = NFT_MSG_NEWTABLE | 6;
const NFT_MSG_GETRULE: u16 = NFT_MSG_NEWTABLE | 7;

/// `struct nfgenmsg`: the family, a version, and of a batch the subsystem, big-endian.
const FAMILY_NETDEV: [u8; GENERIC_HEADER] = [5, 0, 0, 0];
const BATCH: [u8; GENERIC_HEADER] = [0, 0, 0, 10];
const GENERIC_HEADER: usize = 4;

/// `enum nft_table_attributes`.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;

/// `enum nft_chain_attributes`.
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;

/// `enum nft_hook_attributes`, `enum nft_devices_attributes`.
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_DEVICE_NAME: u16 = 1;
const NF_NETDEV_INGRESS: u32 = 0;
/// The priority that `nft` calls `filter`.
const PRIORITY_FILTER: u32 = 0;

/// `enum nft_rule_attributes`, `enum nft_list_attributes`, `enum nft_expr_attributes`.
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// `enum nft_data_attributes`, `enum nft_verdict_attributes`.
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_GOTO: u32 = (-4_i32).cast_unsigned();

/// `enum nft_registers`.
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

/// `enum nft_payload_attributes`, `enum nft_payload_bases`.
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;

/// `enum nft_meta_attributes`, `enum nft_meta_keys`.
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFT_META_IIFTYPE: u32 = 8;
const NFT_META_L4PROTO: u32 = 16;

/// `enum nft_exthdr_attributes`; the number of the IPv6 fragment header, and where its offset is.
const NFTA_EXTHDR_DREG: u16 = 1;
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_EXTHDR_OFFSET: u16 = 3;
const NFTA_EXTHDR_LEN: u16 = 4;
const FRAGMENT_HEADER: u8 = 44;
const FRAGMENT_OFFSET_AT: u32 = 2;

/// `enum nft_bitwise_attributes`.
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;

/// `enum nft_cmp_attributes`, `enum nft_cmp_ops`.
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_CMP_LTE: u32 = 3;
const NFT_CMP_GTE: u32 = 5;

/// `enum nft_immediate_attributes`.
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// The header that the offset of a [`Field`] counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Ethernet. A tag of a VLAN is part of it.
    Link,
    Network,
    /// What the kernel finds behind all extension headers. A fragment that is not the first has
    /// none.
    Transport,
}

/// Bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) base: Base,
    pub(super) offset: u8,
    pub(super) len: u8,
}

/// What a test looks at. A frame that does not have it fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Field(Field),
    /// The kind of the interface, `ARPHRD_ETHER` for instance (16 bits, in host order).
    InterfaceType,
    /// The number of the transport protocol (8 bits), found behind all extension headers but
    /// AH. A frame whose headers the kernel cannot follow has none.
    TransportProtocol,
    /// The offset and flags in the fragment header of IPv6 (16 bits).
    FragmentOffset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
}

/// A test of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) subject: Subject,
    /// The bits that are compared; `None`: all.
    pub(super) mask: Option<Vec<u8>>,
    pub(super) comparison: Comparison,
    pub(super) value: Vec<u8>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// The chain of this name decides. A frame that passes its end is dropped: the base chain's
    /// policy.
    Goto(&'static str),
}

/// A verdict for frames that pass all tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) rules: Vec<Rule>,
}

/// A table of the family netdev. The first of the chains is the base chain, with the policy drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) chains: Vec<Chain>,
}

impl Table {
    /// Makes the table, in place of one of this name, in one step. Its base chain sees what these
    /// interfaces receive.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is no such interface. (Since Linux 6.16 a name without an interface is
    /// fine, and so is an interface that gets the name later. Before, the chain stays with an
    /// interface that gets another name.)
    pub(super) fn make(&self, interfaces: &[&str]) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE, &self.name);
        batch.table(NFT_MSG_DELTABLE, 0, &self.name);
        batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE, &self.name);
        for (index, chain) in self.chains.iter().enumerate() {
            batch.add(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |message| {
                message.put_name(NFTA_CHAIN_TABLE, &self.name);
                message.put_name(NFTA_CHAIN_NAME, chain.name);
                if index == 0 {
                    put_base_chain(message, |hook| match interfaces {
                        // The only way to name one before Linux 5.5.
                        [one] => drop(hook.put_name(NFTA_HOOK_DEV, one)),
                        several => put_devices(hook, several),
                    });
                }
            });
        }
        // A rule may lead to any of the chains: those come first.
        for chain in &self.chains {
            for rule in &chain.rules {
                batch.add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |message| {
                    message.put_name(NFTA_RULE_TABLE, &self.name);
                    message.put_name(NFTA_RULE_CHAIN, chain.name);
                    message.nest(NFTA_RULE_EXPRESSIONS, |rules| put_rule(rules, rule));
                });
            }
        }
        batch.run()
    }

    /// Is the table as [`make`](Self::make) makes it, and does it see what this interface
    /// receives?
    pub(super) fn is_in_place(&self, interface: &str) -> io::Result<bool> {
        let mut netlink = Netlink::open(libc::NETLINK_NETFILTER)?;
        Ok(self.is_awake(&mut netlink)?
            && self.has_base_chain(&mut netlink, interface)?
            && self.has_rules(&mut netlink)?)
    }

    /// The table is there, and not dormant.
    fn is_awake(&self, netlink: &mut Netlink) -> io::Result<bool> {
        let mut message = Message::new(NFT_MSG_GETTABLE, 0, &FAMILY_NETDEV);
        message.put_name(NFTA_TABLE_NAME, &self.name);
        let expected = wanted(|table| {
            table.put_be(NFTA_TABLE_FLAGS, 0);
        });
        one_is(netlink, message, |table| has_all(&expected, table))
    }

    fn has_base_chain(&self, netlink: &mut Netlink, interface: &str) -> io::Result<bool> {
        let Some(base) = self.chains.first() else { return Ok(false) };
        let mut message = Message::new(NFT_MSG_GETCHAIN, 0, &FAMILY_NETDEV);
        message.put_name(NFTA_CHAIN_TABLE, &self.name).put_name(NFTA_CHAIN_NAME, base.name);
        let expected =
            wanted(|chain| put_base_chain(chain, |hook| put_devices(hook, &[interface])));
        one_is(netlink, message, |chain| has_all(&expected, chain))
    }

    /// The rules are these and no others, in this order.
    fn has_rules(&self, netlink: &mut Netlink) -> io::Result<bool> {
        let mut message = Message::new(NFT_MSG_GETRULE, 0, &FAMILY_NETDEV);
        message.put_name(NFTA_RULE_TABLE, &self.name);
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = netlink.list(message, |body| {
            let (mut table, mut chain, mut expressions) = (&[][..], Vec::new(), Vec::new());
            for attribute in attributes(body.get(GENERIC_HEADER..).ok_or(MALFORMED)?) {
                match attribute? {
                    (NFTA_RULE_TABLE, value) => table = value,
                    (NFTA_RULE_CHAIN, value) => chain = value.to_owned(),
                    (NFTA_RULE_EXPRESSIONS, value) => expressions = value.to_owned(),
                    _ => {}
                }
            }
            let ours = table.strip_suffix(b"\0") == Some(self.name.as_bytes());
            Ok(ours.then_some((chain, expressions)))
        })?;
        let mut expected: Vec<(&str, &Rule)> = Vec::new();
        for chain in &self.chains {
            expected.extend(chain.rules.iter().map(|rule| (chain.name, rule)));
        }
        // The order of chains means nothing; within a chain it stays.
        expected.sort_by_key(|(chain, _)| *chain);
        found.sort_by(|one, other| one.0.cmp(&other.0));
        if found.len() != expected.len() {
            return Ok(false);
        }
        for ((chain, expressions), (expected, rule)) in found.iter().zip(expected) {
            let same_chain = chain.strip_suffix(b"\0") == Some(expected.as_bytes());
            if !same_chain || !is_list(&wanted(|rules| put_rule(rules, rule)), expressions)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Takes a table away with all that is in it.
///
/// # Errors
///
/// `ENOENT`: there is no table of this name.
pub(super) fn remove_table(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.table(NFT_MSG_DELTABLE, 0, name);
    batch.run()
}

/// Requests that are carried out all together or not at all.
struct Batch(Message);

impl Batch {
    fn new() -> Self {
        Self(Message::new(NFNL_MSG_BATCH_BEGIN, 0, &BATCH))
    }

    fn table(&mut self, kind: u16, flags: u16, name: &str) {
        self.add(kind, flags, |message| {
            message.put_name(NFTA_TABLE_NAME, name);
        });
    }

    fn add(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Message)) {
        self.0.begin(kind, flags, &FAMILY_NETDEV);
        body(&mut self.0);
    }

    fn run(mut self) -> io::Result<()> {
        // The last request alone is acknowledged: the kernel reports an error of any request, and
        // one acknowledgement for each of many would not fit into the socket.
        self.0.acknowledge();
        self.0.begin(NFNL_MSG_BATCH_END, 0, &BATCH);
        Netlink::open(libc::NETLINK_NETFILTER)?.change_all(self.0)
    }
}

fn put_base_chain(message: &mut Message, devices: impl FnOnce(&mut Message)) {
    message.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.put_be(NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
        hook.put_be(NFTA_HOOK_PRIORITY, PRIORITY_FILTER);
        devices(hook);
    });
    message.put_be(NFTA_CHAIN_POLICY, NF_DROP).put_name(NFTA_CHAIN_TYPE, "filter");
}

/// The kernel lists them so (since Linux 5.5), even if there is but one.
fn put_devices(hook: &mut Message, interfaces: &[&str]) {
    hook.nest(NFTA_HOOK_DEVS, |devices| {
        for name in interfaces {
            devices.put_name(NFTA_DEVICE_NAME, name);
        }
    });
}

fn put_rule(rules: &mut Message, rule: &Rule) {
    rule.tests.iter().for_each(|test| put_test(rules, test));
    put_expression(rules, "immediate", |data| {
        data.put_be(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        data.nest(NFTA_IMMEDIATE_DATA, |data| {
            data.nest(NFTA_DATA_VERDICT, |data| match rule.verdict {
                Verdict::Accept => {
                    data.put_be(NFTA_VERDICT_CODE, NF_ACCEPT);
                }
                Verdict::Drop => {
                    data.put_be(NFTA_VERDICT_CODE, NF_DROP);
                }
                Verdict::Goto(chain) => {
                    data.put_be(NFTA_VERDICT_CODE, NFT_GOTO).put_name(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}

fn put_test(rule: &mut Message, test: &Test) {
    match test.subject {
        Subject::Field(Field { base, offset, len }) => put_expression(rule, "payload", |data| {
            let base = match base {
                Base::Link => 0,
                Base::Network => 1,
                Base::Transport => 2,
            };
            data.put_be(NFTA_PAYLOAD_DREG, NFT_REG_1).put_be(NFTA_PAYLOAD_BASE, base);
            data.put_be(NFTA_PAYLOAD_OFFSET, offset.into()).put_be(NFTA_PAYLOAD_LEN, len.into());
        }),
        Subject::InterfaceType => put_meta(rule, NFT_META_IIFTYPE),
        Subject::TransportProtocol => put_meta(rule, NFT_META_L4PROTO),
        Subject::FragmentOffset => put_expression(rule, "exthdr", |data| {
            data.put_be(NFTA_EXTHDR_DREG, NFT_REG_1).put(NFTA_EXTHDR_TYPE, &[FRAGMENT_HEADER]);
            data.put_be(NFTA_EXTHDR_OFFSET, FRAGMENT_OFFSET_AT).put_be(NFTA_EXTHDR_LEN, 2);
        }),
    }
    if let Some(mask) = &test.mask {
        put_expression(rule, "bitwise", |data| {
            data.put_be(NFTA_BITWISE_SREG, NFT_REG_1).put_be(NFTA_BITWISE_DREG, NFT_REG_1);
            // An address has 16 bytes at most.
            data.put_be(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            put_value(data, NFTA_BITWISE_MASK, mask);
            put_value(data, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
        });
    }
    put_expression(rule, "cmp", |data| {
        let operator = match test.comparison {
            Comparison::Equal => NFT_CMP_EQ,
            Comparison::NotEqual => NFT_CMP_NEQ,
            Comparison::AtMost => NFT_CMP_LTE,
            Comparison::AtLeast => NFT_CMP_GTE,
        };
        data.put_be(NFTA_CMP_SREG, NFT_REG_1).put_be(NFTA_CMP_OP, operator);
        put_value(data, NFTA_CMP_DATA, &test.value);
    });
}

fn put_meta(rule: &mut Message, key: u32) {
    put_expression(rule, "meta", |data| {
        data.put_be(NFTA_META_DREG, NFT_REG_1).put_be(NFTA_META_KEY, key);
    });
}

fn put_value(data: &mut Message, kind: u16, value: &[u8]) {
    data.nest(kind, |data| {
        data.put(NFTA_DATA_VALUE, value);
    });
}

fn put_expression(rule: &mut Message, name: &str, data: impl FnOnce(&mut Message)) {
    rule.nest(NFTA_LIST_ELEM, |element| {
        element.put_name(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data);
    });
}

/// The attributes that are looked for in an answer of the kernel.
fn wanted(put: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::default();
    put(&mut message);
    message.into_attributes()
}

/// Asks for one thing. False if it is not there, or not as `is` wants it.
fn one_is(
    netlink: &mut Netlink,
    message: Message,
    is: impl Fn(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut result = false;
    let got = netlink.get(message, |body| {
        result = is(body.get(GENERIC_HEADER..).ok_or(MALFORMED)?)?;
        Ok(())
    });
    match got {
        Err(error) if is_absence(&error) => Ok(false),
        got => got.map(|()| result),
    }
}

/// Does the error mean that there is no such table or chain, or no nftables at all?
pub(super) fn is_absence(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT)
    )
}

/// Have two lists of attributes as many, and each of the second all that the one in its place in
/// the first has?
fn is_list(expected: &[u8], found: &[u8]) -> io::Result<bool> {
    let (mut expected, mut found) = (attributes(expected), attributes(found));
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return Ok(true),
            (Some(expected), Some(found)) => {
                let ((_, expected), (_, found)) = (expected?, found?);
                if !has_all(expected, found)? {
                    return Ok(false);
                }
            }
            (None, Some(_)) | (Some(_), None) => return Ok(false),
        }
    }
}

/// Has the kernel's answer each of the attributes, with its value, or with all that are in it?
/// The kernel adds some of its own.
fn has_all(expected: &[u8], found: &[u8]) -> io::Result<bool> {
    for attribute in own_attributes(expected) {
        let ((kind, expected), nested) = attribute?;
        let mut has = false;
        for other in attributes(found) {
            let (other, value) = other?;
            if kind == other {
                has |= if nested { has_all(expected, value)? } else { value == expected };
            }
        }
        if !has {
            return Ok(false);
        }
    }
    Ok(true)
}
