//! When a task's scene may have been taken: named windows of dates, and the order in which they are tried.
//!
//! Units: calendar dates in UTC, both ends included; percent of cloud. Contract: the draw depends on the run's seed and
//! the task alone, so the same task looks for the same season on every worker and at every attempt.
//! Trap: a window ends at the end of its last day, not at its midnight.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};

use super::task::fnv1a;

/// How much cloudier than configured a scene may be when the drawn season has none, percent (the original's figure).
pub const CLOUD_STEP: f64 = 10.0;

/// A span of time: from `start` up to, but not with, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval {
    /// First instant.
    pub start: DateTime<Utc>,
    /// First instant after it.
    pub end: DateTime<Utc>,
}

impl Interval {
    /// Whole days from `first` to `last`, both included; `None` if `last` comes first or is the end of time.
    pub fn days(first: NaiveDate, last: NaiveDate) -> Option<Self> {
        let end = last.checked_add_days(Days::new(1))?;
        let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        (first <= last).then(|| Self { start: midnight(first), end: midnight(end) })
    }

    /// Whether an instant lies in it.
    pub fn holds(&self, at: DateTime<Utc>) -> bool {
        self.start <= at && at < self.end
    }
}

/// A named window, for instance winter from 2023-01-01 to 2023-03-20.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Season {
    /// Its name in the configuration.
    pub name: String,
    /// Its days.
    pub interval: Interval,
}

/// What is wrong with a table of seasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeasonError {
    /// There is none.
    #[error("no season is configured: at least one window of dates is needed")]
    None,
    /// Not a date.
    #[error("season `{season}`: `{date}` is not a date of the form 2023-01-31")]
    Date {
        /// Its name.
        season: String,
        /// What stands there.
        date: String,
    },
    /// The wrong way round.
    #[error("season `{season}`: {first} is after {last}")]
    Order {
        /// Its name.
        season: String,
        /// First day.
        first: NaiveDate,
        /// Last day.
        last: NaiveDate,
    },
    /// A season that is asked for by name but not configured.
    #[error("season `{asked}` is not configured; there are: {known}")]
    Unknown {
        /// The name asked for.
        asked: String,
        /// The names there are.
        known: String,
    },
}

impl Season {
    /// Reads one window; dates as `2023-01-31`.
    ///
    /// # Errors
    /// [`SeasonError::Date`], [`SeasonError::Order`].
    pub fn new(name: &str, first: &str, last: &str) -> Result<Self, SeasonError> {
        let date = |s: &str| {
            NaiveDate::parse_from_str(s, "%Y-%m-%d")
                .map_err(|_| SeasonError::Date { season: name.to_owned(), date: s.to_owned() })
        };
        let (first, last) = (date(first)?, date(last)?);
        let interval = Interval::days(first, last);
        let interval = interval.ok_or_else(|| SeasonError::Order { season: name.to_owned(), first, last })?;
        Ok(Self { name: name.to_owned(), interval })
    }
}

/// One attempt at finding scenes: windows to search, and the cloud cover they must stay below.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Names of the seasons, for messages: `winter`, or `every season`.
    pub label: String,
    /// Windows, searched together.
    pub intervals: Vec<Interval>,
    /// Percent of cloud a scene must stay below; `None`: any.
    pub max_cloud: Option<f64>,
}

/// The seasons of a run, at least one, in order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seasons {
    all: Vec<Season>,
    fixed: Option<usize>,
}

impl Seasons {
    /// Seasons to draw from. Their order in the configuration does not matter: they are sorted by name.
    ///
    /// # Errors
    /// [`SeasonError::None`].
    pub fn new(mut all: Vec<Season>) -> Result<Self, SeasonError> {
        if all.is_empty() {
            return Err(SeasonError::None);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.interval.cmp(&b.interval)));
        Ok(Self { all, fixed: None })
    }

    /// The same seasons, but every task draws the one named.
    ///
    /// # Errors
    /// [`SeasonError::Unknown`].
    pub fn always(mut self, name: &str) -> Result<Self, SeasonError> {
        let Some(at) = self.all.iter().position(|s| s.name == name) else {
            let known = self.all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(SeasonError::Unknown { asked: name.to_owned(), known });
        };
        self.fixed = Some(at);
        Ok(self)
    }

    /// All of them, by name.
    pub fn all(&self) -> &[Season] {
        &self.all
    }

    /// The season of a task: each is as likely as the others, and the same task always draws the same one.
    pub fn draw(&self, seed: u64, task_id: u64) -> &Season {
        &self.all[self.draw_index(seed, task_id)]
    }

    /// Place of the drawn season in [`Seasons::all`].
    pub fn draw_index(&self, seed: u64, task_id: u64) -> usize {
        let mut key = [0; 24];
        key[..8].copy_from_slice(b"season\0\0");
        key[8..16].copy_from_slice(&seed.to_le_bytes());
        key[16..].copy_from_slice(&task_id.to_le_bytes());
        self.fixed.unwrap_or_else(|| (mix(fnv1a(&key)) % self.all.len() as u64) as usize)
    }

    /// What to search for a task, in order, until a step finds a scene (the original's order): the drawn season below
    /// `max_cloud`; every season below `max_cloud` + [`CLOUD_STEP`]; every season whatever the cloud. In each step the
    /// least cloudy scene is the best.
    pub fn steps(&self, seed: u64, task_id: u64, max_cloud: f64) -> [Step; 3] {
        let drawn = self.draw(seed, task_id);
        let every: Vec<Interval> = self.all.iter().map(|s| s.interval).collect();
        let label = "every season".to_owned();
        [
            Step { label: drawn.name.clone(), intervals: vec![drawn.interval], max_cloud: Some(max_cloud) },
            Step { label: label.clone(), intervals: every.clone(), max_cloud: Some(max_cloud + CLOUD_STEP) },
            Step { label, intervals: every, max_cloud: None },
        ]
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): spreads FNV's weak high bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn year() -> Seasons {
        let windows = [
            ("winter", "2023-01-01", "2023-03-20"),
            ("spring", "2023-03-21", "2023-06-20"),
            ("summer", "2023-06-21", "2023-09-22"),
            ("autumn", "2023-09-23", "2023-12-20"),
        ];
        Seasons::new(windows.iter().map(|(n, a, b)| Season::new(n, a, b).unwrap()).collect()).unwrap()
    }

    #[test]
    fn the_last_day_counts_to_its_end() {
        let winter = Season::new("winter", "2023-01-01", "2023-03-20").unwrap().interval;
        let at = |s: &str| s.parse::<DateTime<Utc>>().unwrap();
        assert!(winter.holds(at("2023-01-01T00:00:00Z")));
        assert!(winter.holds(at("2023-03-20T23:59:59.999999Z")));
        assert!(!winter.holds(at("2023-03-21T00:00:00Z")));
        assert!(!winter.holds(at("2022-12-31T23:59:59Z")));
    }

    #[test]
    fn bad_tables_say_what_is_wrong() {
        let text = |r: Result<Season, SeasonError>| r.unwrap_err().to_string();
        assert_eq!(
            text(Season::new("winter", "2023-02-30", "2023-03-20")),
            "season `winter`: `2023-02-30` is not a date of the form 2023-01-31"
        );
        assert_eq!(
            text(Season::new("winter", "2023-03-20", "2023-01-01")),
            "season `winter`: 2023-03-20 is after 2023-01-01"
        );
        assert_eq!(Seasons::new(vec![]), Err(SeasonError::None));
        assert_eq!(
            year().always("monsoon").unwrap_err().to_string(),
            "season `monsoon` is not configured; there are: autumn, spring, summer, winter"
        );
    }

    #[test]
    fn the_draw_is_even_and_does_not_depend_on_the_order_of_the_table() {
        let mut count = std::collections::BTreeMap::new();
        let reversed = Seasons::new(year().all().iter().rev().cloned().collect()).unwrap();
        for task in 0..8000 {
            assert_eq!(year().draw(7, task), reversed.draw(7, task));
            *count.entry(year().draw(7, task).name.clone()).or_insert(0) += 1;
        }
        assert!(count.values().all(|n| (1850..2150).contains(n)), "{count:?}");
        assert!((0..50).any(|t| year().draw(1, t) != year().draw(2, t)), "the seed matters");
        assert!((0..50).all(|t| year().always("summer").unwrap().draw(1, t).name == "summer"));
    }

    #[test]
    fn the_steps_are_the_originals() {
        let [first, second, third] = year().steps(1, 2, 20.0);
        assert_eq!((first.intervals.len(), first.max_cloud), (1, Some(20.0)));
        assert_eq!((second.intervals.len(), second.max_cloud), (4, Some(30.0)));
        assert_eq!((third.intervals.len(), third.max_cloud), (4, None));
    }
}
