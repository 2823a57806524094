//! What no toolstack writes: values that mean harm or nothing, and how what is said of them must
//! look.

use std::path::Path;

/// The longest value that fits a message together with the path of any node of a device.
pub const LONGEST: usize = 4000;

/// Such values, by what is wrong with them. Two are paths that lead to `outside`.
pub fn values(outside: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let outside = outside.to_str().unwrap();
    let own = |what, value: &[u8]| (what, value.to_owned());
    vec![
        own("nothing", b""),
        ("the longest", vec![b'x'; LONGEST]),
        ("the longest of bytes that are no text", vec![0xff; LONGEST]),
        own("a NUL", b"\0"),
        own("a NUL at the end", b"1\0"),
        own("a NUL within", b"eth0\0LD_PRELOAD=/outside"),
        own("a line's end", b"1\n"),
        own("another line", b"eth0\n1970-01-01T00:00:00.000Z error: forged"),
        own("another line, and back", b"\r\n1970-01-01T00:00:00.000Z error: forged\r"),
        ("an absolute path", outside.into()),
        ("a path upwards", format!("../../../../../../../..{outside}").into()),
        own("a path to nowhere", b".."),
        own("a command", b"$(touch outside); `touch outside` | touch outside & 'x' \"y\" > z"),
        own("an option", b"--help"),
        own("a format", b"%s%n%s%n%1000000d"),
        own("escapes", b"\x1b]0;title\x07\x1b[2J\x1b[31m\x08\x7f"),
        own("an escape of eight bits", b"\xc2\x9b31m"),
        own("text that runs backwards", b"\xe2\x80\xaegpj.exe"),
        own("no text", b"\xff\xfe\x80\xc3"),
        own("a number of 33 bits", b"4294967297"),
        own("a number of 65 bits", b"18446744073709551617"),
        own("a number of no type", b"999999999999999999999999999999999999999"),
        own("a negative number", b"-1"),
        own("a number with a sign", b"+1"),
        own("a number with a zero before it", b"01"),
        own("a number with a blank before it", b" 1"),
        own("a number with a blank behind it", b"1 "),
        own("a number in hexadecimal", b"0x1"),
    ]
}

/// What a person can be shown: it has nothing that a terminal obeys, nothing that turns text
/// around, one line, and an end.
pub fn is_presentable(text: &str) -> bool {
    let obeyed = |c: char| c.is_control() && c != '\t';
    let turns = |c| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.is_empty() && text.len() < 1500 && !text.contains(|c| obeyed(c) || turns(c))
}

/// Asserts that every line of a log has its head, which is the time or the priority of
/// sd-daemon(3), and is presentable.
#[track_caller]
pub fn assert_log(log: &str, stamped: bool) {
    assert!(log.is_empty() || log.ends_with('\n'), "{log:?}");
    for line in log.split_terminator('\n') {
        let rest = match line.split_once(' ') {
            Some((time, rest)) if stamped => {
                let time = humantime::parse_rfc3339(time).unwrap_or_else(|_| panic!("{line:?}"));
                let today = time.elapsed().is_ok_and(|ago| ago.as_secs() < 24 * 60 * 60);
                assert!(today, "{line:?}");
                rest
            }
            _ => line,
        };
        let level = rest.split_once(": ").map(|(level, _)| level);
        let levels: &[&str] = match stamped {
            true => &["error", "warn", "info", "debug", "trace"],
            false => &["<3>error", "<4>warn", "<6>info", "<7>debug", "<7>trace"],
        };
        assert!(level.is_some_and(|level| levels.contains(&level)), "{line:?}");
        let shown =
            line.len() < 32 * 1024 && !line.contains(|c: char| !is_presentable(&c.to_string()));
        assert!(shown, "{line:?}");
    }
}
