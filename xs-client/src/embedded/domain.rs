//! The domains that the store knows.

use std::collections::HashMap;

/// The domain of the toolstack, which may do everything.
pub(super) const PRIVILEGED: u16 = 0;

/// Numbers from here on never belong to a domain (`DOMID_FIRST_RESERVED` in `xen.h`).
const FIRST_RESERVED: u16 = 0x7ff0;

/// A domain from its creation to its end, with the counts that its quotas limit.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Differs from that of every other domain there ever was.
    life: u64,
    pub(super) introduced: bool,
    /// The domain has shut down and was not resumed.
    pub(super) shut_down: bool,
    /// Nodes that it owns.
    pub(super) nodes: usize,
    pub(super) watches: usize,
    pub(super) transactions: usize,
    /// The domain whose rights this one has besides its own.
    pub(super) target: Option<u16>,
}

/// All domains that exist, as far as the store knows.
#[derive(Debug)]
pub(super) struct Domains {
    by_id: HashMap<u16, Domain>,
    next_life: u64,
    /// With no hypervisor to ask: does a domain exist as soon as somebody names it?
    any_exists: bool,
}

impl Domains {
    /// Domain 0 alone.
    pub(super) fn new(any_exists: bool) -> Self {
        let mut domains = Self { by_id: HashMap::new(), next_life: 0, any_exists };
        domains.create(PRIVILEGED).introduced = true;
        domains
    }

    /// The domain, which exists from now on if it did not.
    pub(super) fn create(&mut self, domid: u16) -> &mut Domain {
        let next_life = &mut self.next_life;
        self.by_id.entry(domid).or_insert_with(|| {
            *next_life += 1;
            Domain { life: *next_life, ..Domain::default() }
        })
    }

    /// Does the domain that a request names exist?
    pub(super) fn exists(&mut self, domid: u16) -> bool {
        if self.any_exists && domid < FIRST_RESERVED {
            self.create(domid);
        }
        self.by_id.contains_key(&domid)
    }

    pub(super) fn remove(&mut self, domid: u16) {
        self.by_id.remove(&domid);
    }

    pub(super) fn get(&self, domid: u16) -> Option<&Domain> {
        self.by_id.get(&domid)
    }

    pub(super) fn get_mut(&mut self, domid: u16) -> Option<&mut Domain> {
        self.by_id.get_mut(&domid)
    }

    /// The domain, if the store is connected to it.
    pub(super) fn introduced(&mut self, domid: u16) -> Option<&mut Domain> {
        self.get_mut(domid).filter(|domain| domain.introduced)
    }

    /// The number that tells this domain from earlier and later ones of the same domid.
    pub(super) fn life(&self, domid: u16) -> Option<u64> {
        self.get(domid).map(|domain| domain.life)
    }

    /// Counts nodes that the domain got, or lost.
    pub(super) fn count_nodes(&mut self, domid: u16, change: isize) {
        if let Some(domain) = self.get_mut(domid) {
            domain.nodes = domain.nodes.saturating_add_signed(change);
        }
    }
}

/// The home of a domain, which its relative paths begin at.
pub(super) fn home(domid: u16) -> Vec<u8> {
    format!("/local/domain/{domid}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_used_again_is_another_life() {
        let mut domains = Domains::new(false);
        domains.create(7);
        let first = domains.life(7);
        domains.create(7);
        assert_eq!(domains.life(7), first);
        domains.remove(7);
        assert_eq!(domains.life(7), None);
        domains.create(7);
        assert_ne!(domains.life(7), first);
    }

    #[test]
    fn without_hypervisor_every_unreserved_domid_exists() {
        assert!(Domains::new(true).exists(9));
        assert!(!Domains::new(true).exists(FIRST_RESERVED));
        assert!(!Domains::new(false).exists(9));
    }
}
