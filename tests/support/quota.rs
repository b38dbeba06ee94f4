//! What a run with quotas came to, out of a monitor's last line.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::{Ended, Pairs, World};

/// Targets of a tenth of what is drawn, and a monitor that looks five times a second.
pub fn loop_settings(world: &mut World) {
    world.set("sampling.stop_when_filled", "true");
    world.set("sampling.conversion_rate", "0.1");
    world.set("monitor.interval_s", "0.2");
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Chips by class.
    pub chips: BTreeMap<u8, u64>,
    /// Targets by class, without those of 0.
    pub targets: BTreeMap<u8, u64>,
    /// Tasks by status.
    pub statuses: BTreeMap<String, u64>,
}

impl Outcome {
    /// Of a node that showed the progress as JSON.
    pub fn of(ended: &Ended) -> Self {
        let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
        assert_eq!(last["complete"], true, "{last}");
        let classes = || last["classes"].as_array().unwrap().iter().map(|c| (c["class"].as_u64().unwrap() as u8, c));
        Self {
            chips: classes().map(|(class, c)| (class, c["chips"].as_u64().unwrap())).collect(),
            targets: classes()
                .filter_map(|(class, c)| Some((class, c["target"].as_u64().filter(|t| *t > 0)?)))
                .collect(),
            statuses: serde_json::from_value(last["statuses"].clone()).unwrap(),
        }
    }

    /// No class that reaches its target when nothing is stopped misses it, and one without a target has all it can.
    #[track_caller]
    pub fn assert_reached(&self, undisturbed: &Self) {
        for (class, all) in &undisturbed.chips {
            let wanted = self.targets.get(class).map_or(*all, |target| *target.min(all));
            assert!(self.chips[class] >= wanted, "class {class}: {} of {wanted}", self.chips[class]);
        }
    }
}

/// Every file of `part` is in `whole`, with the same bytes.
#[track_caller]
pub fn assert_part(part: &Pairs, whole: &Pairs) {
    let other: Vec<_> = part.iter().filter(|(name, hash)| whole.get(*name) != Some(hash)).collect();
    assert!(
        other.is_empty() && !part.is_empty() && part.len() < whole.len(),
        "{other:?}, {} of {}",
        part.len(),
        whole.len()
    );
}
