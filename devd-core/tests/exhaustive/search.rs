//! Breadth first through all states: the first violation is one of the shortest.

use std::collections::HashSet;

use crate::world::explore::{Explored, Move};
use crate::world::store::Spec;

/// How a state was reached from the one before it.
#[derive(Clone, Debug)]
struct Step {
    parent: u32,
    next: Move,
    decisions: Box<[u8]>,
}

/// What a search has found out.
#[derive(Debug)]
pub(crate) struct Findings {
    /// States that are different.
    pub(crate) states: usize,
    /// Were these all that can be reached?
    pub(crate) complete: bool,
    /// The longest of the shortest ways to a state.
    pub(crate) depth: usize,
    /// What must not happen and does, with the scenario that leads to it.
    pub(crate) violation: Option<String>,
}

/// Looks at every state that can be reached, at most so many.
pub(crate) fn search(start: &Explored, specs: &[Spec], most: usize) -> Findings {
    let mut steps: Vec<Step> = Vec::new();
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut resting = HashSet::new();
    let mut level = vec![(start.clone(), u32::MAX)];
    let mut depth = 0;
    while !level.is_empty() && seen.len() < most {
        let mut below = Vec::new();
        for (state, index) in level {
            if let Err(violation) = state.clone().comes_to_rest(&mut resting) {
                let violation = scenario(start, specs, &steps, index, &violation, true);
                return Findings {
                    states: seen.len(),
                    complete: false,
                    depth,
                    violation: Some(violation),
                };
            }
            for next in state.moves(specs) {
                let mut decisions = Some(Vec::new());
                while let Some(wanted) = decisions {
                    let mut after = state.clone();
                    let changed = after.apply(next, specs, &wanted);
                    decisions = after.world.chance.next_decisions();
                    let violation = after.world.violation.take();
                    let is_new = changed && seen.insert(after.fingerprint());
                    if !is_new && violation.is_none() {
                        continue;
                    }
                    steps.push(Step { parent: index, next, decisions: wanted.into() });
                    let number = u32::try_from(steps.len() - 1).expect("fewer than 2^32 states");
                    if let Some(violation) = violation {
                        let violation = scenario(start, specs, &steps, number, &violation, false);
                        return Findings {
                            states: seen.len(),
                            complete: false,
                            depth,
                            violation: Some(violation),
                        };
                    }
                    below.push((after, number));
                }
            }
        }
        level = below;
        depth += 1;
    }
    Findings { states: seen.len(), complete: level.is_empty(), depth, violation: None }
}

/// The way to a state, told line by line.
fn scenario(
    start: &Explored,
    specs: &[Spec],
    steps: &[Step],
    last: u32,
    violation: &str,
    at_rest: bool,
) -> String {
    let mut way = Vec::new();
    let mut index = last;
    while let Some(step) = steps.get(index as usize) {
        way.push(step);
        index = step.parent;
    }
    let mut state = start.clone();
    state.world.story = Some(Vec::new());
    for step in way.iter().rev() {
        state.apply(step.next, specs, &step.decisions);
    }
    let mut story = state.world.story.clone().unwrap_or_default();
    if at_rest {
        let before = story.len();
        story.push("          from here on nothing more goes wrong".to_owned());
        state.world.story = Some(story);
        story = state.story_of_rest();
        story.truncate(before + 120);
    }
    format!("{violation}\nafter {} steps:\n{}", way.len(), story.join("\n"))
}
