//! How two kinds of values look in TOML: durations as seconds, maps by class with text keys.
//!
//! Contract: `read(write(x)) == x`. Trap: TOML keys are text, so a class id arrives as `"3"`.

/// A `Duration` as seconds, fractions allowed.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(d.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// A map by class.
pub(super) mod class_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::domain::classes::ClassId;

    pub(crate) fn serialize<S: Serializer, V: Serialize>(map: &BTreeMap<ClassId, V>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(map.iter().map(|(class, p)| (class.to_string(), p)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
        d: D,
    ) -> Result<BTreeMap<ClassId, V>, D::Error> {
        let raw = BTreeMap::<String, V>::deserialize(d)?;
        raw.into_iter().map(|(class, p)| Ok((parse(&class).map_err(D::Error::custom)?, p))).collect()
    }

    /// A class id from a table's key.
    pub(crate) fn parse(text: &str) -> Result<ClassId, String> {
        let n: u8 = text.parse().map_err(|_| format!("`{text}` is not a class, 1 to 254"))?;
        ClassId::try_from(n).map_err(|e| e.to_string())
    }
}
