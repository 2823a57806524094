//! The ways that ours are compared with, in C: what the C toolstack does, in its shape.

use std::ffi::{CStr, c_char, c_int, c_uint};

use devd_core::{BackendPath, DeviceKey, Domid, Kind, Leaf};

#[repr(C)]
#[derive(Default)]
struct Parsed {
    kind: c_int,
    domid: c_uint,
    devid: c_uint,
    leaf: c_int,
}

#[repr(C)]
struct RawLists {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn reference_event_path(event: *const c_char, out: *mut Parsed) -> c_int;
    fn reference_event_path_early(event: *const c_char, out: *mut Parsed) -> c_int;
    fn reference_lists_new() -> *mut RawLists;
    fn reference_lists_free(lists: *mut RawLists);
    fn reference_lists_find(lists: *mut RawLists, kind: c_int, domid: u32, devid: u32) -> c_int;
    fn reference_lists_insert(lists: *mut RawLists, kind: c_int, domid: u32, devid: u32) -> c_int;
    fn reference_lists_remove(lists: *mut RawLists, kind: c_int, domid: u32, devid: u32) -> c_int;
}

/// Which node of a device's directory: as much as the reference tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// `state`.
    State,
    /// `online`.
    Online,
    /// Another.
    Other,
}

impl Node {
    /// The same of what ours tells apart; `None` for the directory itself.
    #[must_use]
    pub const fn of(path: &BackendPath<'_>) -> Option<(DeviceKey, Self)> {
        match path {
            BackendPath::Device(_, Leaf::Directory) => None,
            BackendPath::Device(key, Leaf::State) => Some((*key, Self::State)),
            BackendPath::Device(key, Leaf::Online) => Some((*key, Self::Online)),
            BackendPath::Device(key, Leaf::Script | Leaf::Type | Leaf::Other) => {
                Some((*key, Self::Other))
            }
            _ => None,
        }
    }
}

/// What an absolute path is about: a copy of it, `strrchr`, `sscanf`, and the kind by a table
/// from its beginning.
#[must_use]
#[inline]
pub fn event_path(path: &CStr) -> Option<(DeviceKey, Node)> {
    let mut parsed = Parsed::default();
    // SAFETY: the path ends with a NUL, `parsed` is of the form that C gives it, and neither
    // is kept.
    let found = unsafe { reference_event_path(path.as_ptr(), &raw mut parsed) } != 0;
    if found { parsed.read() } else { None }
}

/// The same for whom only `state` and `online` matter; `None` for all else.
#[must_use]
#[inline]
pub fn event_path_early(path: &CStr) -> Option<(DeviceKey, Node)> {
    let mut parsed = Parsed::default();
    // SAFETY: as above.
    let found = unsafe { reference_event_path_early(path.as_ptr(), &raw mut parsed) } != 0;
    if found { parsed.read() } else { None }
}

impl Parsed {
    fn read(self) -> Option<(DeviceKey, Node)> {
        let kind = *Kind::ALL.get(usize::try_from(self.kind).ok()?)?;
        let domid = Domid::try_from(self.domid).ok()?;
        let node = match self.leaf {
            0 => Node::State,
            1 => Node::Online,
            _ => Node::Other,
        };
        Some((DeviceKey { kind, domid, devid: self.devid }, node))
    }
}

/// A list of guests, each with a list of its devices.
#[derive(Debug)]
pub struct Lists(*mut RawLists);

impl Lists {
    /// Empty lists.
    #[must_use]
    #[allow(clippy::new_without_default)] // Nobody needs that.
    pub fn new() -> Self {
        // SAFETY: it takes nothing.
        let lists = unsafe { reference_lists_new() };
        assert!(!lists.is_null(), "there is memory");
        Self(lists)
    }

    /// Is there such a device?
    #[must_use]
    #[inline]
    pub fn find(&self, key: DeviceKey) -> bool {
        // SAFETY: the lists are there until `drop`, and this thread's alone.
        unsafe { reference_lists_find(self.0, key.kind as c_int, key.domid.into(), key.devid) != 0 }
    }

    /// Adds a device; false if there is one of this name.
    #[inline]
    pub fn insert(&mut self, key: DeviceKey) -> bool {
        // SAFETY: as above.
        unsafe {
            reference_lists_insert(self.0, key.kind as c_int, key.domid.into(), key.devid) != 0
        }
    }

    /// Takes a device away; false if there is none of this name.
    #[inline]
    pub fn remove(&mut self, key: DeviceKey) -> bool {
        // SAFETY: as above.
        unsafe {
            reference_lists_remove(self.0, key.kind as c_int, key.domid.into(), key.devid) != 0
        }
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        // SAFETY: nobody has the lists but this.
        unsafe { reference_lists_free(self.0) }
    }
}

/// The C client library.
#[cfg(libxenstore)]
pub mod libxenstore {
    use std::ffi::{CStr, c_char, c_int, c_uint};

    #[repr(C)]
    struct RawHandle {
        _opaque: [u8; 0],
    }

    unsafe extern "C" {
        fn reference_libxenstore_open(path: *const c_char) -> *mut RawHandle;
        fn reference_libxenstore_close(handle: *mut RawHandle);
        fn reference_libxenstore_read(
            handle: *mut RawHandle,
            path: *const c_char,
            expected: *const u8,
            expected_len: c_uint,
        ) -> c_int;
    }

    /// A connection.
    #[derive(Debug)]
    pub struct Handle(*mut RawHandle);

    impl Handle {
        /// By the daemon's socket. Sets an environment variable: no other thread may run.
        #[must_use]
        pub fn open(path: &CStr) -> Option<Self> {
            // SAFETY: the path ends with a NUL and is not kept.
            let handle = unsafe { reference_libxenstore_open(path.as_ptr()) };
            if handle.is_null() { None } else { Some(Self(handle)) }
        }

        /// Is the node's value `expected`?
        #[must_use]
        pub fn read(&mut self, path: &CStr, expected: &[u8]) -> bool {
            let Ok(len) = c_uint::try_from(expected.len()) else { return false };
            // SAFETY: the handle is open; both strings are as long as is said, and not kept.
            unsafe {
                reference_libxenstore_read(self.0, path.as_ptr(), expected.as_ptr(), len) != 0
            }
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            // SAFETY: nobody has the handle but this.
            unsafe { reference_libxenstore_close(self.0) }
        }
    }
}
