//! From the paths that clients send to those of nodes.

use std::borrow::Cow;

use xs_proto::{ErrorCode, Path};

use super::domain::home;

/// The absolute path of a node.
///
/// # Errors
///
/// `EINVAL` for what is no path of a node.
pub(super) fn absolute(domid: u16, path: &[u8]) -> Result<Cow<'_, [u8]>, ErrorCode> {
    let path = match Path::new(path) {
        Ok(path) if path.is_special() => return Err(ErrorCode::Inval),
        Ok(path) if path.is_absolute() => Cow::Borrowed(path.as_bytes()),
        Ok(path) => Cow::Owned([&*home(domid), b"/", path.as_bytes()].concat()),
        Err(_) => return Err(ErrorCode::Inval),
    };
    if path.len() > below_home(&path) + Path::RELATIVE_MAX {
        return Err(ErrorCode::Inval);
    }
    Ok(path)
}

/// The absolute or special path of a watch. Of a special one only the length is checked.
///
/// # Errors
///
/// `EINVAL` for what is no path.
pub(super) fn watched(domid: u16, path: &[u8]) -> Result<Cow<'_, [u8]>, ErrorCode> {
    if !path.starts_with(b"@") {
        return absolute(domid, path);
    }
    if path.len() > Path::RELATIVE_MAX { Err(ErrorCode::Inval) } else { Ok(Cow::Borrowed(path)) }
}

/// Relative to the home of whoever asks?
pub(super) fn is_relative(path: &[u8]) -> bool {
    !path.starts_with(b"/") && !path.starts_with(b"@")
}

/// Where in a path the part begins that is below the home of a domain; 0 if there is none.
///
/// The C xenstored allows that part, or any other whole path, no more than a relative path may
/// have, which is less than `XENSTORE_ABS_PATH_MAX`.
fn below_home(path: &[u8]) -> usize {
    let Some(rest) = path.strip_prefix(b"/local/domain/") else { return 0 };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=5).contains(&digits) || rest.get(digits) != Some(&b'/') {
        return 0;
    }
    path.len() - rest.len() + digits + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_the_home_of_the_domain() {
        assert_eq!(*absolute(7, b"data/x").unwrap(), *b"/local/domain/7/data/x");
        assert_eq!(*absolute(7, b"/tool").unwrap(), *b"/tool");
        assert!(absolute(7, b"@releaseDomain").is_err());
        assert_eq!(*watched(7, b"@releaseDomain").unwrap(), *b"@releaseDomain");
    }

    #[test]
    fn the_length_is_limited_from_the_home_of_a_domain_on() {
        let long = |start: &str, more: usize| [start.as_bytes(), &vec![b'a'; more]].concat();
        assert!(absolute(7, &long("/", 2047)).is_ok());
        assert!(absolute(7, &long("/", 2048)).is_err());
        assert!(absolute(7, &long("/local/domain/12/", 2048)).is_ok());
        assert!(absolute(7, &long("/local/domain/12/", 2049)).is_err());
        assert!(absolute(7, &long("/local/domain/123456/", 2048)).is_err());
        assert!(absolute(7, &long("", 2048)).is_ok());
        assert!(absolute(7, &long("", 2049)).is_err());
        assert!(watched(7, &long("@", 2048)).is_err());
    }
}
