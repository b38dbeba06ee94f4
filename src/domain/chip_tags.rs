//! What a chip's files say about themselves, as tags of the GeoTIFF.
//!
//! Contract: the same for image and mask; every tag is always there, empty where nothing is known, so that a reader need
//! not ask twice. Equal chips of equal runs have equal tags: no clock, worker, task or path is among them. Units: percent
//! for `CLOUD_COVER`, shares of the chip for the fractions, DN for `OFFSET`.
//! Trap: `CLOUD_COVER` is the whole scene's, `BAD_FRACTION` the chip's own.

use super::classes::ClassId;
use super::provenance::Provenance;
use super::scene::Scene;

/// What the tags are made of.
#[derive(Debug, Clone, Copy)]
pub struct Tagged<'a> {
    /// Scene of the pixels.
    pub scene: &'a Scene,
    /// Season it was taken in.
    pub season: &'a str,
    /// Acquisition, RFC 3339.
    pub datetime: &'a str,
    /// Parcel in the centre.
    pub parcel: i64,
    /// Its class.
    pub class: ClassId,
    /// The run.
    pub run: &'a str,
    /// Its seed.
    pub seed: u64,
    /// What was found out about the pixels.
    pub provenance: &'a Provenance,
}

/// The tags, in order.
pub fn chip_tags(of: &Tagged<'_>) -> [(&'static str, String); 16] {
    let (scene, known) = (of.scene, of.provenance);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        ("ITEM", scene.id.clone()),
        ("COLLECTION", scene.collection.clone()),
        ("DATETIME", of.datetime.to_owned()),
        ("PRODUCT_URI", text(&known.product_uri)),
        ("BASELINE", text(&known.baseline)),
        ("OFFSET_RULE", known.offset_rule.clone()),
        ("OFFSET", known.offset.to_string()),
        ("SEASON", of.season.to_owned()),
        ("WIDENED", known.widened.clone()),
        ("CLOUD_COVER", scene.cloud_cover.to_string()),
        ("BAD_FRACTION", known.bad_fraction.map_or(String::new(), |share| share.to_string())),
        ("NODATA_FRACTION", known.nodata_fraction.to_string()),
        ("PARCEL", of.parcel.to_string()),
        ("CLASS", of.class.to_string()),
        ("RUN", of.run.to_owned()),
        ("SEED", of.seed.to_string()),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_empty_and_every_tag_comes_once() {
        let (scene, provenance) = (Scene::bare(), Provenance { offset: 1000, ..Provenance::default() });
        let tags = chip_tags(&Tagged {
            scene: &scene,
            season: "spring",
            datetime: "2023-05-01T10:56:29Z",
            parcel: -3,
            class: 5.try_into().unwrap(),
            run: "r1",
            seed: 42,
            provenance: &provenance,
        });
        let of = |name| tags.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!((of("BASELINE"), of("BAD_FRACTION"), of("OFFSET")), (vec![""], vec![""], vec!["1000"]));
        assert_eq!((of("PARCEL"), of("CLOUD_COVER")), (vec!["-3"], vec!["3"]));
        assert!(tags.iter().all(|(name, _)| of(name).len() == 1));
    }
}
