//! What others have written, as people can be shown it: whoever chooses a value of the store or
//! a line of a hook's output must not write on a terminal with it, nor a line of the log.

use std::borrow::Cow;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// So many bytes of a value are shown: what is said of it must fit a node.
const MOST: usize = 200;

/// The text on one line: what a terminal would obey and what would turn the text around is
/// shown by its name. A tab stays.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// The value of a node: the same, with what is no text by its numbers, and cut if it is long.
pub(crate) fn value(value: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in value[..value.len().min(MOST)].utf8_chunks() {
        shown.push_str(&line(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if value.len() > MOST {
        shown.push_str("...");
    }
    shown
}

/// A path that was the value of a node.
pub(crate) fn path(path: &Path) -> String {
    value(path.as_os_str().as_bytes())
}

fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_a_terminal_or_begin_a_line_is_named() {
        assert_eq!(line("\x1b[31mred\u{9b}1m\ttab\r\n"), "\\u{1b}[31mred\\u{9b}1m\ttab\\r\\n");
        assert_eq!(line("a \u{202e}b\u{2028}\u{7f}"), "a \\u{202e}b\\u{2028}\\u{7f}");
        assert!(matches!(line("Grüße, \"%s\" \\"), Cow::Borrowed("Grüße, \"%s\" \\")));
    }

    #[test]
    fn a_value_is_shown_as_far_as_it_is_text_and_not_without_an_end() {
        assert_eq!(value(b"/srv/\xffdisk\n\0"), "/srv/\\xffdisk\\n\\u{0}");
        assert_eq!(value(&[b'x'; MOST]), "x".repeat(MOST));
        assert_eq!(value(&[b'x'; MOST + 1]), "x".repeat(MOST) + "...");
        assert_eq!(value(&[0xff; 4000]).len(), 4 * MOST + 3);
    }
}
