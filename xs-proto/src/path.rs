//! Paths of nodes.

/// The rule of the store that a path breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is empty.
    #[error("the path is empty")]
    Empty,
    /// The path is longer than the store allows: [`Path::ABSOLUTE_MAX`], [`Path::RELATIVE_MAX`].
    #[error("the path is too long")]
    TooLong,
    /// The path has a character other than `A-Z a-z 0-9 - _ / @`.
    #[error("the path has a character that is none of A-Z a-z 0-9 - _ / @")]
    BadCharacter,
    /// The path has two slashes in a row, or a slash at its end.
    #[error("the path has a doubled slash, or one at its end")]
    EmptyComponent,
}

/// A path that keeps the store's rules, borrowed.
///
/// Absolute (`/local/domain/3/name`), relative to the domain's own home (`device/vif/0`), or
/// special (`@releaseDomain`, for watches only). Source: "Data model" in `xenstore.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path<'a>(&'a [u8]);

impl<'a> Path<'a> {
    /// The longest absolute path in bytes (`XENSTORE_ABS_PATH_MAX`).
    pub const ABSOLUTE_MAX: usize = 3072;
    /// The longest relative path in bytes (`XENSTORE_REL_PATH_MAX`).
    pub const RELATIVE_MAX: usize = 2048;

    /// Checks a path.
    ///
    /// # Errors
    ///
    /// [`PathError`] says which rule it breaks.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PathError> {
        let (first, last) = match bytes {
            [] => return Err(PathError::Empty),
            [first, .., last] => (*first, *last),
            [only] => (*only, b'-'),
        };
        let max = if first == b'/' { Self::ABSOLUTE_MAX } else { Self::RELATIVE_MAX };
        if bytes.len() > max {
            return Err(PathError::TooLong);
        }
        let mut before = b'-';
        for &byte in bytes {
            match byte {
                b'/' if before == b'/' => return Err(PathError::EmptyComponent),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' | b'@' => {}
                _ => return Err(PathError::BadCharacter),
            }
            before = byte;
        }
        if last == b'/' {
            return Err(PathError::EmptyComponent);
        }
        Ok(Self(bytes))
    }

    /// The path's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Does it begin at the root?
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with(b"/")
    }

    /// Is it one of the store's own events (`@introduceDomain`, `@releaseDomain`)?
    #[must_use]
    pub fn is_special(&self) -> bool {
        self.0.starts_with(b"@")
    }

    /// The names along the path, without the slashes. The root has none.
    pub fn components(&self) -> impl Iterator<Item = &'a [u8]> {
        Components { rest: self.0.strip_prefix(b"/").unwrap_or(self.0) }
    }
}

struct Components<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let at = memchr::memchr(b'/', self.rest).unwrap_or(self.rest.len());
        let (component, behind) = self.rest.split_at(at);
        self.rest = behind.get(1..).unwrap_or_default();
        Some(component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn components(path: &[u8]) -> Vec<&[u8]> {
        Path::new(path).unwrap().components().collect()
    }

    #[test]
    fn components_of_each_kind_of_path() {
        assert_eq!(components(b"/"), Vec::<&[u8]>::new());
        assert_eq!(components(b"/local/domain"), [&b"local"[..], b"domain"]);
        assert_eq!(components(b"device/vif/0"), [&b"device"[..], b"vif", b"0"]);
        assert!(Path::new(b"@releaseDomain").unwrap().is_special());
        assert!(Path::new(b"/").unwrap().is_absolute());
    }

    #[test]
    fn what_breaks_a_rule_says_which() {
        assert_eq!(Path::new(b""), Err(PathError::Empty));
        assert_eq!(Path::new(b"//"), Err(PathError::EmptyComponent));
        assert_eq!(Path::new(b"/a//b"), Err(PathError::EmptyComponent));
        assert_eq!(Path::new(b"/a/"), Err(PathError::EmptyComponent));
        assert_eq!(Path::new(b"a/"), Err(PathError::EmptyComponent));
        assert_eq!(Path::new(b"/a b"), Err(PathError::BadCharacter));
        assert_eq!(Path::new(b"/a\0"), Err(PathError::BadCharacter));
        assert_eq!(Path::new(b"/a/../b"), Err(PathError::BadCharacter));
    }

    #[test]
    fn the_longest_paths_pass_and_one_more_byte_does_not() {
        let mut absolute = vec![b'a'; Path::ABSOLUTE_MAX];
        absolute[0] = b'/';
        assert!(Path::new(&absolute).is_ok());
        absolute.push(b'a');
        assert_eq!(Path::new(&absolute), Err(PathError::TooLong));
        let mut relative = vec![b'a'; Path::RELATIVE_MAX];
        assert!(Path::new(&relative).is_ok());
        relative.push(b'a');
        assert_eq!(Path::new(&relative), Err(PathError::TooLong));
    }
}
