//! How many requests there were.

use xs_proto::MessageType;

/// How many requests of each type were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_type: [u64; Self::TYPES],
    unknown: u64,
}

impl Counts {
    /// Types are numbered from 0 to `SET_QUOTA`.
    const TYPES: usize = MessageType::SetQuota as usize + 1;

    /// Requests of one type.
    #[must_use]
    pub fn of(&self, kind: MessageType) -> u64 {
        self.by_type[kind as usize]
    }

    /// All requests, even those of no known type.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_type.iter().sum::<u64>() + self.unknown
    }

    /// The types of which there were any, with how many.
    pub fn iter(&self) -> impl Iterator<Item = (MessageType, u64)> {
        (0..)
            .map_while(|number| {
                let count = *self.by_type.get(usize::try_from(number).ok()?)?;
                Some((MessageType::from_wire(number), count))
            })
            .filter_map(|(kind, count)| Some((kind?, count)).filter(|_| count > 0))
    }

    /// The requests counted since `earlier`, a copy of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = *self;
        for (count, before) in counts.by_type.iter_mut().zip(earlier.by_type) {
            *count = count.saturating_sub(before);
        }
        counts.unknown = counts.unknown.saturating_sub(earlier.unknown);
        counts
    }

    pub(super) fn count(&mut self, kind: Option<MessageType>) {
        match kind {
            Some(kind) => self.by_type[kind as usize] += 1,
            None => self.unknown += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_type() {
        let mut counts = Counts::default();
        counts.count(Some(MessageType::Read));
        let earlier = counts;
        counts.count(Some(MessageType::Read));
        counts.count(Some(MessageType::SetQuota));
        counts.count(None);
        assert_eq!(counts.of(MessageType::Read), 2);
        assert_eq!(counts.total(), 4);
        let kinds: Vec<_> = counts.since(&earlier).iter().collect();
        assert_eq!(kinds, [(MessageType::Read, 1), (MessageType::SetQuota, 1)]);
    }
}
