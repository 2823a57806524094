//! Permissions: the rights of a caller to a node.

use std::sync::Arc;

use xs_proto::{Access, Permission, PermissionList};

use super::domain::{Domains, PRIVILEGED};

/// The domain that makes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) domid: u16,
    /// The domain whose rights it has too (`SET_TARGET`).
    pub(super) target: Option<u16>,
}

impl Caller {
    /// The toolstack's domain.
    pub(super) const PRIVILEGED: Self = Self { domid: PRIVILEGED, target: None };

    pub(super) const fn is_privileged(self) -> bool {
        self.domid == PRIVILEGED
    }

    fn acts_for(self, domid: u16) -> bool {
        self.domid == domid || self.target == Some(domid)
    }
}

/// A set of things that may be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights(u8);

impl Rights {
    pub(super) const READ: Self = Self(1);
    pub(super) const WRITE: Self = Self(2);
    const OWNER: Self = Self(4);
    /// To change its permissions.
    pub(super) const CONTROL: Self = Self(Self::WRITE.0 | Self::OWNER.0);
    const ALL: Self = Self(Self::READ.0 | Self::WRITE.0 | Self::OWNER.0);

    const fn of(access: Access) -> Self {
        Self(
            (if access.may_read() { Self::READ.0 } else { 0 })
                | (if access.may_write() { Self::WRITE.0 } else { 0 }),
        )
    }

    pub(super) const fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    pub(super) const fn intersects(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

/// An entry, and which life of its domain it was written for: a number may be used again by
/// another domain, which must not inherit what its predecessor was allowed.
#[derive(Clone, Copy, Debug)]
struct Entry {
    permission: Permission,
    /// `None`: there was no such domain.
    life: Option<u64>,
}

impl Entry {
    fn new(permission: Permission, domains: &Domains) -> Self {
        Self { permission, life: domains.life(permission.domid) }
    }

    fn is_alive(&self, domains: &Domains) -> bool {
        self.life.is_some() && domains.life(self.permission.domid) == self.life
    }
}

/// The permissions of a node; never empty. Cheap to clone, as children inherit them.
#[derive(Clone, Debug)]
pub(super) struct Permissions(Arc<[Entry]>);

impl Permissions {
    /// Of domain 0, and nobody else's.
    pub(super) fn privileged(domains: &Domains) -> Self {
        let nobody = Permission { domid: PRIVILEGED, access: Access::None };
        Self([Entry::new(nobody, domains)].into())
    }

    pub(super) fn new(list: PermissionList<'_>, domains: &Domains) -> Self {
        Self(list.iter().map(|permission| Entry::new(permission, domains)).collect())
    }

    /// The permissions of a node that `caller` makes below a node with these permissions: the
    /// same, but an unprivileged domain owns the nodes that it makes.
    pub(super) fn inherited(&self, caller: Caller, domains: &Domains) -> Self {
        let first = self.0[0].permission;
        if caller.is_privileged() || (first.domid == caller.domid && self.0[0].is_alive(domains)) {
            return self.clone();
        }
        let mut entries: Vec<Entry> = self.0.to_vec();
        entries[0] = Entry::new(Permission { domid: caller.domid, ..first }, domains);
        Self(entries.into())
    }

    /// The domain that owns the node: domain 0 once the owner is gone.
    pub(super) fn owner(&self, domains: &Domains) -> u16 {
        let first = &self.0[0];
        if first.is_alive(domains) { first.permission.domid } else { PRIVILEGED }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rights of `caller`. The owner may do everything; of the other entries the first that
    /// names the caller counts, and without any the access in the owner's own.
    ///
    /// Source: "Permissions" in `xenstore.txt`.
    pub(super) fn rights(&self, caller: Caller, domains: &Domains) -> Rights {
        if caller.is_privileged() || caller.acts_for(self.owner(domains)) {
            return Rights::ALL;
        }
        let named = self.0[1..]
            .iter()
            .find(|entry| caller.acts_for(entry.permission.domid) && entry.is_alive(domains));
        Rights::of(named.unwrap_or(&self.0[0]).permission.access)
    }

    /// Appends the payload of `GET_PERMS`.
    pub(super) fn emit(&self, domains: &Domains, out: &mut Vec<u8>) {
        let owner = Permission { domid: self.owner(domains), ..self.0[0].permission };
        owner.emit(out);
        self.0[1..].iter().for_each(|entry| entry.permission.emit(out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Domains {
        let mut domains = Domains::new(false);
        for domid in [7, 8, 9] {
            domains.create(domid);
        }
        domains
    }

    fn permissions(list: &[u8], domains: &Domains) -> Permissions {
        Permissions::new(PermissionList::parse(list).unwrap(), domains)
    }

    fn unprivileged(domid: u16) -> Caller {
        Caller { domid, target: None }
    }

    #[test]
    fn owner_named_and_other_domains_have_their_rights() {
        let domains = domains();
        let list = permissions(b"r7\0b8\0", &domains);
        assert_eq!(list.rights(Caller::PRIVILEGED, &domains), Rights::ALL);
        assert_eq!(list.rights(unprivileged(7), &domains), Rights::ALL);
        assert!(list.rights(unprivileged(8), &domains).contains(Rights::WRITE));
        assert!(!list.rights(unprivileged(8), &domains).contains(Rights::CONTROL));
        assert_eq!(list.rights(unprivileged(9), &domains), Rights::READ);
    }

    #[test]
    fn a_domain_with_a_target_has_the_targets_rights() {
        let domains = domains();
        let list = permissions(b"n7\0", &domains);
        let stub_domain = Caller { domid: 9, target: Some(7) };
        assert_eq!(list.rights(stub_domain, &domains), Rights::ALL);
        assert!(!list.rights(unprivileged(9), &domains).intersects(Rights::ALL));
    }

    #[test]
    fn new_domain_inherits_no_rights_of_old_one_of_its_domid() {
        let mut domains = domains();
        let list = permissions(b"n0\0r9\0", &domains);
        let owned = permissions(b"n9\0", &domains);
        domains.remove(9);
        domains.create(9);
        assert!(!list.rights(unprivileged(9), &domains).intersects(Rights::READ));
        assert!(!owned.rights(unprivileged(9), &domains).intersects(Rights::READ));
        assert_eq!(owned.owner(&domains), PRIVILEGED);
        let mut out = Vec::new();
        owned.emit(&domains, &mut out);
        list.emit(&domains, &mut out);
        assert_eq!(out, b"n0\0n0\0r9\0");
    }

    #[test]
    fn unprivileged_domain_owns_the_nodes_it_makes() {
        let domains = domains();
        let parent = permissions(b"r7\0b8\0", &domains);
        let mut out = Vec::new();
        parent.inherited(unprivileged(8), &domains).emit(&domains, &mut out);
        assert_eq!(out, b"r8\0b8\0");
        out.clear();
        parent.inherited(Caller::PRIVILEGED, &domains).emit(&domains, &mut out);
        assert_eq!(out, b"r7\0b8\0");
    }
}
