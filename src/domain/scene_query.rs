//! Which scenes a task can use, and which of them is the best.
//!
//! Units: degrees, percent of cloud. Contract: [`SceneQuery::select`] is the only judge. Servers ignore filters, compare
//! numbers as text and repeat items, so whatever they answer is judged again here, and the real catalog and its
//! scripted twin agree. The order of what comes out does not depend on the order of what goes in.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::scene::Scene;
use super::season::Interval;

/// Scenes wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneQuery {
    /// `[west, south, east, north]`, degrees: the task's cell.
    pub bbox: [f64; 4],
    /// A scene's acquisition lies in one of these.
    pub intervals: Vec<Interval>,
    /// Its cloud cover stays below this, percent; `None`: any.
    pub max_cloud: Option<f64>,
    /// It is in one of these collections; empty: any. A scene that names no collection may be in any.
    pub collections: Vec<String>,
}

impl SceneQuery {
    /// Whether a scene is wanted.
    pub fn matches(&self, scene: &Scene) -> bool {
        self.intervals.iter().any(|i| i.holds(scene.datetime))
            && self.max_cloud.is_none_or(|max| scene.cloud_cover < max)
            && (self.collections.is_empty()
                || scene.collection.is_empty()
                || self.collections.contains(&scene.collection))
            && scene.touches(self.bbox)
    }

    /// The wanted ones, each acquisition once, best first: least cloud, then earliest, then id.
    pub fn select<'a>(&self, scenes: impl IntoIterator<Item = &'a Arc<Scene>>) -> Vec<Arc<Scene>> {
        let mut best: HashMap<(&str, &str), &'a Arc<Scene>> = HashMap::new();
        for scene in scenes.into_iter().filter(|s| self.matches(s)) {
            let kept = best.entry(acquisition(scene)).or_insert(scene);
            if supersedes(scene, kept) == Ordering::Greater {
                *kept = scene;
            }
        }
        let mut out: Vec<_> = best.into_values().cloned().collect();
        out.sort_by(|a, b| {
            let by_cloud = a.cloud_cover.total_cmp(&b.cloud_cover);
            by_cloud.then_with(|| a.datetime.cmp(&b.datetime)).then_with(|| a.id.cmp(&b.id))
        });
        out
    }
}

/// What two copies of one acquisition have in common: the product, or for want of it the item itself.
fn acquisition(scene: &Scene) -> (&str, &str) {
    scene.product_uri.as_deref().map_or((&scene.collection, &scene.id), |product| ("", product))
}

/// Which of two copies is the better one: higher sequence, then newer, then the higher id.
fn supersedes(a: &Scene, b: &Scene) -> Ordering {
    let key = |s: &Scene| (s.sequence, s.updated);
    key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id)).then_with(|| a.collection.cmp(&b.collection))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::footprint::Footprint;
    use super::super::season::Season;
    use super::*;

    fn scene(id: &str, day: &str, cloud: f64) -> Scene {
        Scene {
            id: id.into(),
            datetime: format!("{day}T10:56:29Z").parse().unwrap(),
            cloud_cover: cloud,
            product_uri: Some(format!("{id}.SAFE")),
            ..Scene::bare()
        }
    }

    fn spring() -> SceneQuery {
        SceneQuery {
            bbox: [0.5, 0.5, 0.55, 0.55],
            intervals: vec![Season::new("spring", "2023-03-21", "2023-06-20").unwrap().interval],
            max_cloud: Some(20.0),
            collections: vec!["sentinel-2-l2a".into()],
        }
    }

    fn ids(query: &SceneQuery, scenes: Vec<Scene>) -> Vec<String> {
        let scenes: Vec<_> = scenes.into_iter().map(Arc::new).collect();
        query.select(&scenes).iter().map(|s| s.id.clone()).collect()
    }

    #[test]
    fn every_filter_is_applied_here_too() {
        let mut far = scene("far", "2023-04-01", 1.0);
        far.bbox = [2.0, 0.0, 3.0, 1.0];
        let mut edge = scene("edge", "2023-04-01", 1.0);
        edge.footprint = Footprint::new(vec![vec![[0.0, 0.0], [0.9, 0.0], [0.0, 0.9]]]);
        let mut other = scene("other", "2023-04-01", 1.0);
        other.collection = "landsat-c2-l2".into();
        let scenes = vec![
            scene("cloudy", "2023-04-01", 20.0),
            scene("late", "2023-06-21", 1.0),
            far,
            edge,
            other,
            scene("good", "2023-06-20", 19.9),
        ];
        assert_eq!(ids(&spring(), scenes), ["good"]);
    }

    #[test]
    fn least_cloud_then_earliest_then_id_and_numbers_are_not_text() {
        let scenes = vec![
            scene("d", "2023-05-02", 5.0),
            scene("c", "2023-05-01", 5.0),
            scene("b", "2023-05-01", 5.0),
            scene("a", "2023-05-01", 10.0),
        ];
        assert_eq!(ids(&spring(), scenes), ["b", "c", "d", "a"]);
    }

    #[test]
    fn of_two_copies_the_later_one_stays() {
        let copy = |id: &str, sequence, updated: &str| {
            let mut s = scene(id, "2023-05-01", 5.0);
            s.product_uri = Some("P.SAFE".into());
            s.sequence = sequence;
            s.updated = updated.parse().ok();
            s
        };
        let (old, new) = ("2023-01-01T00:00:00Z", "2023-01-02T00:00:00Z");
        assert_eq!(ids(&spring(), vec![copy("x_0", Some(0), new), copy("x_1", Some(1), old)]), ["x_1"]);
        assert_eq!(ids(&spring(), vec![copy("x", None, new), copy("y", None, old)]), ["x"]);
        assert_eq!(ids(&spring(), vec![copy("x", None, old), copy("y", None, old)]), ["y"]);
    }

    proptest! {
        #[test]
        fn the_order_of_the_answer_does_not_matter(
            seeds in proptest::collection::vec((0..4u32, 0..3u32, 0..3u32), 1..12).prop_shuffle(),
        ) {
            let build = |(i, (cloud, product, sequence)): (usize, &(u32, u32, u32))| {
                let mut s = scene(&format!("s{i}"), "2023-05-01", f64::from(*cloud));
                s.product_uri = (*product > 0).then(|| format!("P{product}"));
                s.sequence = Some(*sequence);
                s
            };
            let scenes: Vec<Scene> = seeds.iter().enumerate().map(build).collect();
            let reversed: Vec<Scene> = scenes.iter().rev().cloned().collect();
            prop_assert_eq!(ids(&spring(), scenes), ids(&spring(), reversed));
        }
    }
}
