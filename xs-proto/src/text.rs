//! The fields of payloads: strings ended by a NUL, and decimal numbers.

use alloc::vec::Vec;

use crate::Malformed;

/// Takes the string before the next NUL, and what is behind that NUL.
pub(crate) fn split_nul(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let at = memchr::memchr(0, bytes).ok_or(Malformed)?;
    Ok((&bytes[..at], &bytes[at + 1..]))
}

/// The whole of `bytes` is one string and its NUL.
pub(crate) fn one(bytes: &[u8]) -> Result<&[u8], Malformed> {
    match split_nul(bytes)? {
        (string, []) => Ok(string),
        _ => Err(Malformed),
    }
}

/// The whole of `bytes` is two strings, each with its NUL.
pub(crate) fn two(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (first, rest) = split_nul(bytes)?;
    Ok((first, one(rest)?))
}

/// A decimal number with no sign and no blank.
pub(crate) fn number<T: TryFrom<u64>>(digits: &[u8]) -> Result<T, Malformed> {
    if digits.is_empty() || digits.len() > 20 {
        return Err(Malformed);
    }
    let mut value: u64 = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => u64::from(digit - b'0'),
            _ => return Err(Malformed),
        };
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(Malformed)?;
    }
    T::try_from(value).map_err(|_| Malformed)
}

/// Appends a string and its NUL.
pub(crate) fn put(out: &mut Vec<u8>, string: &[u8]) {
    out.extend_from_slice(string);
    out.push(0);
}

/// Appends a number in decimal, with no NUL.
pub(crate) fn put_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a number in decimal and a NUL.
pub(crate) fn put_number(out: &mut Vec<u8>, value: impl Into<u64>) {
    put_digits(out, value.into());
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(number::<u64>(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(number::<u64>(b"18446744073709551616"), Err(Malformed));
        assert_eq!(number::<u16>(b"65536"), Err(Malformed));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"0x1", b"000000000000000000000"] {
            assert_eq!(number::<u64>(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn digits_are_written_as_they_are_read() {
        for value in [0, 7, 10, 65535, u64::MAX] {
            let mut out = Vec::new();
            put_digits(&mut out, value);
            assert_eq!(number::<u64>(&out), Ok(value));
        }
    }
}
