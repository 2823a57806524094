//! A xenstore client.

#[cfg(feature = "embedded")]
pub mod embedded;
