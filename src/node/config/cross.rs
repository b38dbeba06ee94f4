//! What values must be to each other, and what a role needs.
//!
//! Contract: called after every value alone was found allowed. Errors name the key to change, its origin
//! and the remedy.

use super::error::ConfigError;
use super::imagery_sections::{SEASON_BY_CLASS, SEASON_WORDS};
use super::output::Compression;
use super::sections::{CellOrder, SamplingMode};
use super::{Config, ConfigErrors};
use crate::domain::band::Band;

/// What a part of the program cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `parcels.path`: master, worker, plan.
    Parcels,
    /// A broker outside this process: a role alone, topics, group.
    Broker,
}

impl Config {
    /// Checks that what a role needs is configured.
    ///
    /// # Errors
    /// One [`ConfigError::Conflict`] per need that is not met, with the remedy.
    pub fn require(&self, needs: &[Need]) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        for need in needs {
            match need {
                Need::Parcels if self.parcels.path.as_os_str().is_empty() => errors.push(self.conflict(
                    "parcels.path",
                    "no parcels are configured; give the GeoPackage, for instance --set parcels.path=parcels.gpkg",
                )),
                Need::Broker if self.kafka.is_embedded() => errors.push(self.conflict(
                    "kafka.bootstrap_servers",
                    "the embedded broker lives inside one process; use --role all, or give a broker's host:port",
                )),
                _ => {}
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }

    /// Everything that does not go together.
    pub(super) fn conflicts(&self) -> Vec<ConfigError> {
        let mut found = self.topic_conflicts();
        found.extend(self.season_conflicts());
        found.extend(self.resolution_conflict());
        if self.split.val_share + self.split.test_share > 1.0 {
            found.push(self.conflict("split.val_share", "and split.test_share are more than 1 together"));
        }
        if self.monitor.is_exposed() {
            found.push(self.conflict(
                "monitor.listen",
                "is reachable from other machines, and anybody there could read the page: set monitor.token, or \
                 monitor.allow_public = true if something else guards it, or listen on 127.0.0.1",
            ));
        }
        if self.parcels.code_column().is_none() && self.parcels.name_column().is_none() {
            found.push(
                self.conflict("parcels.code_column", "is empty like parcels.name_column; one of the two is needed"),
            );
        }
        if self.sampling.mode == SamplingMode::Balanced && self.sampling.probabilities.is_empty() {
            found.push(self.conflict(
                "sampling.probabilities",
                "is empty, so no parcel would be drawn; name the classes, or use sampling.mode = \"basic\"",
            ));
        }
        if self.sampling.mode == SamplingMode::Basic {
            // What these two go by are targets.
            if self.grid.order == CellOrder::Rarest {
                found.push(
                    self.conflict("grid.order", "\"rarest\" goes by targets, and sampling.mode = \"basic\" has none"),
                );
            }
            if self.sampling.stop_when_filled {
                let problem = "goes by targets, and sampling.mode = \"basic\" has none";
                found.push(self.conflict("sampling.stop_when_filled", problem));
            }
        }
        if self.output.bucket().is_some()
            && self.output.s3_endpoint().is_some_and(|url| url.starts_with("http:"))
            && !self.output.s3_allow_http
        {
            let problem =
                "is not https, and chips would travel in the clear: use https, or set output.s3_allow_http = true";
            found.push(self.conflict("output.s3_endpoint", problem));
        }
        if self.output.compression == Compression::Deflate && self.output.compression_level > 12 {
            found.push(self.conflict("output.compression_level", "deflate has levels 1 to 12"));
        }
        found
    }

    fn topic_conflicts(&self) -> Vec<ConfigError> {
        let k = &self.kafka;
        let topics = [
            ("kafka.tasks_topic", &k.tasks_topic),
            ("kafka.results_topic", &k.results_topic),
            ("kafka.dlq_topic", &k.dlq_topic),
            ("kafka.control_topic", &k.control_topic),
            ("kafka.status_topic", &k.status_topic),
        ];
        let twice = |(i, (key, topic)): (usize, &(&str, &String))| {
            let (other, _) = topics[..i].iter().find(|(_, earlier)| earlier == topic)?;
            Some(self.conflict(key, &format!("is the same topic as {other}; each needs its own")))
        };
        topics.iter().enumerate().filter_map(twice).collect()
    }

    /// Chips have the grid of their finest band; no band is ever made coarser.
    fn resolution_conflict(&self) -> Option<ConfigError> {
        let bands = self.chips.bands.iter().filter_map(|name| name.parse::<Band>().ok());
        let finest = bands.map(Band::gsd).min()?;
        let problem = format!("is not {finest}, the edge of a pixel of the finest of chips.bands, in metres");
        (finest != self.chips.resolution).then(|| self.conflict("chips.resolution", &problem))
    }

    fn season_conflicts(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        if self.stac.seasons.is_empty() {
            found.push(self.conflict("stac.seasons", "is empty; at least one season is needed"));
        }
        for word in SEASON_WORDS.into_iter().filter(|word| self.stac.seasons.contains_key(*word)) {
            let problem = format!("`{word}` has a meaning of its own for stac.season; use another name");
            found.push(self.conflict(&format!("stac.seasons.{word}"), &problem));
        }
        let names: Vec<_> = self.stac.seasons.keys().map(String::as_str).collect();
        let known = |season: &str| self.stac.seasons.contains_key(season);
        if let Some(season) = self.stac.season()
            && !known(season)
        {
            let problem =
                format!("there is no season `{season}`; allowed: random, all, by_class, {}", names.join(", "));
            found.push(self.conflict("stac.season", &problem));
        }
        if self.stac.season == SEASON_BY_CLASS {
            for (class, season) in self.stac.by_class.iter().filter(|(_, season)| !known(season)) {
                let problem = format!("there is no season `{season}`; allowed: {}", names.join(", "));
                found.push(self.conflict(&format!("stac.by_class.{class}"), &problem));
            }
        }
        found
    }

    fn conflict(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError::Conflict { key: key.into(), origin: self.origin(key).into(), problem: problem.into() }
    }
}
