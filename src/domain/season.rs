//! When a task's scene may have been taken: named windows of dates, and the order in which they are tried.
//!
//! Units: calendar dates in UTC, both ends included; percent of cloud. Contract: a chip's season depends on the run's
//! seed, the task and the parcel's class alone, so it is the same on every worker and at every attempt.
//! Trap: a window ends at the end of its last day, not at its midnight.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};

use super::candidate::Widened;
use super::classes::ClassId;
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
    /// How far this is from what was wanted.
    pub widened: Widened,
    /// Windows, searched together.
    pub intervals: Vec<Interval>,
    /// Percent of cloud a scene must stay below; `None`: any.
    pub max_cloud: Option<f64>,
}

/// Which season a chip is looked for in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pick {
    /// Drawn per task, each as likely as the others.
    #[default]
    Random,
    /// Every one of them: a chip per season.
    All,
    /// This one, by its place in [`Seasons::all`].
    Always(usize),
    /// That of the chip's class; drawn for classes that are not named.
    ByClass(BTreeMap<ClassId, usize>),
}

/// The seasons of a run, at least one, in order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seasons {
    all: Vec<Season>,
    pick: Pick,
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
        Ok(Self { all, pick: Pick::Random })
    }

    /// The same seasons, but every chip is looked for in the one named.
    ///
    /// # Errors
    /// [`SeasonError::Unknown`].
    pub fn always(mut self, name: &str) -> Result<Self, SeasonError> {
        self.pick = Pick::Always(self.place(name)?);
        Ok(self)
    }

    /// The same seasons, and a chip in each of them for every parcel.
    #[must_use]
    pub fn every(mut self) -> Self {
        self.pick = Pick::All;
        self
    }

    /// The same seasons, but a chip is looked for in that of its class.
    ///
    /// # Errors
    /// [`SeasonError::Unknown`].
    pub fn by_class<'a>(mut self, of: impl IntoIterator<Item = (ClassId, &'a str)>) -> Result<Self, SeasonError> {
        let places = of.into_iter().map(|(class, name)| Ok((class, self.place(name)?)));
        self.pick = Pick::ByClass(places.collect::<Result<_, SeasonError>>()?);
        Ok(self)
    }

    fn place(&self, name: &str) -> Result<usize, SeasonError> {
        self.all.iter().position(|s| s.name == name).ok_or_else(|| {
            let known = self.all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            SeasonError::Unknown { asked: name.to_owned(), known }
        })
    }

    /// All of them, by name.
    pub fn all(&self) -> &[Season] {
        &self.all
    }

    /// Chips that one parcel gives.
    pub fn chips_per_parcel(&self) -> usize {
        if self.pick == Pick::All { self.all.len() } else { 1 }
    }

    /// Whether a parcel's chips are to lie on one another, season over season.
    pub fn is_series(&self) -> bool {
        self.pick == Pick::All
    }

    /// Whether all chips of a task are of one season.
    pub fn one_per_task(&self) -> bool {
        matches!(self.pick, Pick::Random | Pick::Always(_))
    }

    /// The seasons of a parcel of this class in a task, by their places in [`Seasons::all`]; the same task always gets
    /// the same ones.
    pub fn of(&self, seed: u64, task_id: u64, class: ClassId) -> Vec<usize> {
        match &self.pick {
            Pick::All => (0..self.all.len()).collect(),
            Pick::ByClass(of) => vec![of.get(&class).copied().unwrap_or_else(|| self.draw_index(seed, task_id))],
            Pick::Random | Pick::Always(_) => vec![self.draw_index(seed, task_id)],
        }
    }

    /// Place of a task's season in [`Seasons::all`]: the one of all tasks, or a drawn one, each as likely as the others.
    pub fn draw_index(&self, seed: u64, task_id: u64) -> usize {
        if let Pick::Always(at) = self.pick {
            return at;
        }
        let mut key = [0; 24];
        key[..8].copy_from_slice(b"season\0\0");
        key[8..16].copy_from_slice(&seed.to_le_bytes());
        key[16..].copy_from_slice(&task_id.to_le_bytes());
        (mix(fnv1a(&key)) % self.all.len() as u64) as usize
    }

    /// The season by which a task is sorted among others, because tasks of one season share scenes: that of the task, or
    /// the first where a task needs several.
    pub fn visit_index(&self, seed: u64, task_id: u64) -> usize {
        match self.pick {
            Pick::All | Pick::ByClass(_) => 0,
            Pick::Random | Pick::Always(_) => self.draw_index(seed, task_id),
        }
    }

    /// Name of the season an instant lies in: the one at `wanted` if it does, else the first by name.
    pub fn name_at(&self, wanted: usize, at: DateTime<Utc>) -> &str {
        let first = self.all.get(wanted).into_iter().chain(&self.all).find(|s| s.interval.holds(at));
        first.map_or("", |s| s.name.as_str())
    }

    /// What to search for a chip of the season at `wanted`, in order, for as long as it needs another scene. In each
    /// step the least cloudy scene is the best. `widest` is where the search ends:
    /// the season below `max_cloud`; the season below `max_cloud` + [`CLOUD_STEP`]; every season below that; every
    /// season whatever the cloud (the original's order, but for the second). A series keeps to its season, and ends
    /// with the season whatever the cloud.
    pub fn steps(&self, wanted: usize, max_cloud: f64, widest: Widened) -> Vec<Step> {
        let season: Vec<Interval> = self.all.get(wanted).map(|s| s.interval).into_iter().collect();
        let every: Vec<Interval> = self.all.iter().map(|s| s.interval).collect();
        let more = Some(max_cloud + CLOUD_STEP);
        let step =
            |widened, intervals: &Vec<Interval>, max_cloud| Step { widened, intervals: intervals.clone(), max_cloud };
        let mut steps = vec![step(Widened::No, &season, Some(max_cloud)), step(Widened::Cloud, &season, more)];
        if self.is_series() {
            steps.push(step(Widened::Cloud, &season, None));
        } else {
            steps.extend([step(Widened::Season, &every, more), step(Widened::Season, &every, None)]);
        }
        steps.retain(|s| s.widened <= widest);
        steps
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

    fn class(n: u8) -> ClassId {
        n.try_into().unwrap()
    }

    #[test]
    fn the_draw_is_even_and_does_not_depend_on_the_order_of_the_table() {
        let mut count = BTreeMap::new();
        let reversed = Seasons::new(year().all().iter().rev().cloned().collect()).unwrap();
        let drawn = |seed, task| year().of(seed, task, class(1));
        for task in 0..8000 {
            assert_eq!(drawn(7, task), reversed.of(7, task, class(5)));
            *count.entry(drawn(7, task)).or_insert(0) += 1;
        }
        assert!(count.values().all(|n| (1850..2150).contains(n)), "{count:?}");
        assert!((0..50).any(|t| drawn(1, t) != drawn(2, t)), "the seed matters");
        assert!((0..50).all(|t| year().always("summer").unwrap().of(1, t, class(1)) == [2]));
    }

    #[test]
    fn a_parcel_may_have_all_seasons_or_that_of_its_class() {
        assert_eq!(year().every().of(1, 1, class(3)), [0, 1, 2, 3]);
        let by_class = year().by_class([(class(1), "summer"), (class(5), "spring")]).unwrap();
        assert_eq!((by_class.of(1, 1, class(1)), by_class.of(1, 1, class(5))), (vec![2], vec![1]));
        assert_eq!(by_class.of(1, 1, class(8)), year().of(1, 1, class(8)), "drawn where the class is not named");
        assert!(year().by_class([(class(1), "monsoon")]).is_err());
    }

    #[test]
    fn the_search_widens_in_cloud_then_in_season_and_a_series_never_in_season() {
        let short =
            |steps: Vec<Step>| steps.iter().map(|s| (s.widened, s.intervals.len(), s.max_cloud)).collect::<Vec<_>>();
        let (no, cloud, season) = (Widened::No, Widened::Cloud, Widened::Season);
        let first = [(no, 1, Some(20.0)), (cloud, 1, Some(30.0))];
        let all = short(year().steps(2, 20.0, season));
        assert_eq!(all, [&first[..], &[(season, 4, Some(30.0)), (season, 4, None)]].concat());
        assert_eq!(short(year().steps(2, 20.0, cloud)), first);
        assert_eq!(short(year().steps(2, 20.0, no)), first[..1]);
        let series = short(year().every().steps(2, 20.0, season));
        assert_eq!(series, [&first[..], &[(cloud, 1, None)]].concat());
    }

    #[test]
    fn a_scene_is_called_by_the_season_it_was_taken_in() {
        let at = |s: &str| s.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(year().name_at(0, at("2023-07-01T10:00:00Z")), "summer");
        let mut overlapping = year().all().to_vec();
        overlapping.push(Season::new("a_year", "2023-01-01", "2023-12-31").unwrap());
        let seasons = Seasons::new(overlapping).unwrap();
        assert_eq!(seasons.name_at(3, at("2023-07-01T10:00:00Z")), "summer");
        assert_eq!(seasons.name_at(4, at("2023-07-01T10:00:00Z")), "a_year", "the one wanted does not hold it");
    }
}
