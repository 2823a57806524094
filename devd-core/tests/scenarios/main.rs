//! What a device daemon must do, told in scenarios: each proves one thing that
//! `docs/contract.md` promises, and most are what an earlier daemon got wrong.

#[path = "../world/mod.rs"]
mod world;

mod fairness;
mod hooks;
mod life;
mod qemu;
mod replacement;
mod restart;
