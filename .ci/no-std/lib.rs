//! xs-proto, xs-client and devd-core in a program without std. If one of them, or a crate below it,
//! brings std along, this does not build: std has a panic handler too, and there may be one only.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

// A crate that nothing names is not linked.
use {devd_core as _, xs_client as _, xs_proto as _};

struct NoMemory;

// SAFETY: no memory is handed out.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
