//! What a static daemon does without of the C library: functions that are linked, with all that
//! they need, and are of no use to it. The standard library calls the first; glibc the others.

use std::ffi::{c_char, c_int, c_void};

/// Where the stack of a thread is: the standard library asks, so as to tell an overflow of the
/// stack from another fault. glibc reads `/proc/self/maps` for it, by a `scanf` for every kind
/// of number. Without an answer an overflow ends the daemon all the same, and is not named.
// SAFETY: no other function of this name is linked; it is the contract of pthread_getattr_np(3)
// that nothing is written when it fails.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: libc::pthread_t, _attributes: *mut c_void) -> c_int {
    libc::ENOSYS
}

/// A message of glibc's own in the language of the locale, from a catalogue that no static
/// program brings with it.
// SAFETY: no other function of this name is linked; the text itself is what dcgettext(3) gives
// where there is no translation.
#[unsafe(no_mangle)]
extern "C" fn dcgettext(
    _domain: *const c_char,
    text: *const c_char,
    _category: c_int,
) -> *const c_char {
    text
}

/// The same by the name that glibc uses.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __dcgettext(
    domain: *const c_char,
    text: *const c_char,
    category: c_int,
) -> *const c_char {
    dcgettext(domain, text, category)
}
