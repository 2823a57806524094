//! The facts that hooks need, stored once for all devices with the same facts.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::{Node, Observation};

/// The values in a device's directory that its hook needs.
#[derive(Debug, Hash)]
pub(crate) struct HookFacts {
    pub(crate) script: Option<Box<[u8]>>,
    pub(crate) has_type: bool,
    pub(crate) ioemu: bool,
    pub(crate) gatewaydev: Box<[u8]>,
}

impl HookFacts {
    fn of(seen: &Observation<'_>) -> Self {
        Self {
            script: seen.script.map(Box::from),
            has_type: seen.vif_type.is_some(),
            ioemu: is_ioemu(seen),
            gatewaydev: seen.gatewaydev.unwrap_or_default().into(),
        }
    }

    /// Has this node the same value in both?
    pub(crate) fn agree_on(&self, node: Node, other: &Self) -> bool {
        match node {
            Node::Script => self.script == other.script,
            Node::Type => self.has_type == other.has_type && self.ioemu == other.ioemu,
            Node::Gatewaydev => self.gatewaydev == other.gatewaydev,
        }
    }

    fn are_of(&self, seen: &Observation<'_>) -> bool {
        self.script.as_deref() == seen.script
            && self.has_type == seen.vif_type.is_some()
            && self.ioemu == is_ioemu(seen)
            && *self.gatewaydev == *seen.gatewaydev.unwrap_or_default()
    }
}

fn is_ioemu(seen: &Observation<'_>) -> bool {
    seen.vif_type == Some(b"vif_ioemu")
}

/// The facts that were stored last. Nearly all devices of a driver domain have one of two or three
/// hooks, so a new device shares its facts with others and takes no memory for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentFacts(VecDeque<Arc<HookFacts>>);

impl RecentFacts {
    /// More than there are scripts.
    const MOST: usize = 8;

    /// The facts that were seen.
    pub(crate) fn of(&mut self, seen: &Observation<'_>) -> Arc<HookFacts> {
        if let Some(known) = self.0.iter().find(|facts| facts.are_of(seen)) {
            return Arc::clone(known);
        }
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        let facts = Arc::new(HookFacts::of(seen));
        self.0.push_back(Arc::clone(&facts));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(script: &[u8]) -> Observation<'_> {
        Observation { script: Some(script), ..Observation::GONE }
    }

    #[test]
    fn same_facts_are_stored_once_and_old_ones_are_dropped() {
        let mut recent = RecentFacts::default();
        let first = recent.of(&seen(b"block"));
        assert!(Arc::ptr_eq(&first, &recent.of(&seen(b"block"))));
        let typed = Observation { vif_type: Some(b"vif"), ..seen(b"block") };
        assert!(!Arc::ptr_eq(&first, &recent.of(&typed)));
        let gateway = Observation { gatewaydev: Some(b"eth0"), ..seen(b"block") };
        assert!(!Arc::ptr_eq(&first, &recent.of(&gateway)));
        for i in 0..100 {
            let script = [i];
            assert_eq!(recent.of(&seen(&script)).script.as_deref(), Some(&script[..]));
        }
        assert_eq!(recent.0.len(), RecentFacts::MOST);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
