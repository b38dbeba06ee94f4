//! The STAC API behind [`Catalog`]: one search per neighbourhood and season, paged, parsed item by item, and kept.
//!
//! Contract: identical searches run once at a time and are remembered, bounded by scenes; a failed search is not
//! remembered. A malformed item is counted and left out; an endless or foreign paging is an error, or ends with a
//! warning where nothing can be lost. No retries here. Units: degrees, scenes.
//! Trap: the server's filters only save traffic; [`SceneQuery::select`] judges again, for every task.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{SecondsFormat, TimeDelta};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::adapters::http::{Http, redact};
use crate::domain::band::Band;
use crate::domain::scene::Scene;
use crate::domain::scene_query::SceneQuery;
use crate::domain::season::Interval;

use super::item::{ItemReader, folder_of};
use super::neighbourhood::Neighbourhood;
use super::paging::PageRequest;
use super::{Catalog, CatalogError};

/// Pages in a row that may be empty and still promise another one.
const EMPTY_PAGES: usize = 3;

/// How to search.
#[derive(Debug, Clone)]
pub struct CatalogSettings {
    /// Root of the STAC API; `/search` is below it (and may be part of it).
    pub url: Url,
    /// Folder of relative hrefs; `{id}` and `{collection}` stand for the item's. `None`: the item's self link.
    pub relative_href_base: Option<String>,
    /// Bands without which an item is of no use.
    pub required: Vec<Band>,
    /// Edge of a neighbourhood, degrees.
    pub neighbourhood_deg: f64,
    /// Whether the server is told the cloud bound, which saves pages. Not for one that compares it as text: it would
    /// leave out 9.5 when asked for less than 20.
    pub cloud_on_server: bool,
    /// Items per page; Earth Search fails above about 250.
    pub page_items: u64,
    /// Most pages of one search.
    pub max_pages: usize,
    /// Most items of one search.
    pub max_items: usize,
    /// Largest page, bytes of JSON (an item of Earth Search has about 30 kB; parsed, a page takes some five times this).
    pub max_page_bytes: usize,
    /// Scenes remembered, about 3 kB each; at least `max_items` are.
    pub cached_scenes: u64,
}

impl CatalogSettings {
    /// The usual figures for the API at `url`, all eleven bands required.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            relative_href_base: None,
            required: Band::ALL.to_vec(),
            neighbourhood_deg: 0.5,
            cloud_on_server: true,
            page_items: 100,
            max_pages: 60,
            max_items: 4096,
            max_page_bytes: 8 << 20,
            cached_scenes: 8192,
        }
    }
}

/// What the catalog has done so far.
#[derive(Debug, Default)]
pub struct CatalogCounters {
    finds: AtomicU64,
    searches: AtomicU64,
    pages: AtomicU64,
    items: AtomicU64,
    filter_ignored: AtomicU64,
    unusable: Mutex<BTreeMap<&'static str, u64>>,
}

/// [`CatalogCounters`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogTally {
    /// Calls of [`Catalog::find`].
    pub finds: u64,
    /// Searches sent; the difference was answered from memory.
    pub searches: u64,
    /// Pages received.
    pub pages: u64,
    /// Items received.
    pub items: u64,
    /// Scenes too cloudy for the search that brought them: the server's filter does not work.
    pub filter_ignored: u64,
    /// Items left out, by reason.
    pub unusable: BTreeMap<&'static str, u64>,
}

impl CatalogCounters {
    /// Their values now.
    pub fn tally(&self) -> CatalogTally {
        CatalogTally {
            finds: self.finds.load(Relaxed),
            searches: self.searches.load(Relaxed),
            pages: self.pages.load(Relaxed),
            items: self.items.load(Relaxed),
            filter_ignored: self.filter_ignored.load(Relaxed),
            unusable: self.unusable.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Counts an item left out; true for the first of its kind.
    fn left_out(&self, kind: &'static str) -> bool {
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unusable.entry(kind).or_default();
        *count += 1;
        *count == 1
    }
}

type Scenes = Arc<Vec<Arc<Scene>>>;

/// A list weighs its scenes, an empty one as much as one.
#[derive(Debug, Clone)]
struct ByScenes;

impl Weighter<Neighbourhood, Scenes> for ByScenes {
    fn weight(&self, _: &Neighbourhood, scenes: &Scenes) -> u64 {
        scenes.len().max(1) as u64
    }
}

/// A STAC API.
#[derive(Debug)]
pub struct StacCatalog {
    http: Arc<Http>,
    settings: CatalogSettings,
    endpoint: Url,
    reader: ItemReader,
    known: Cache<Neighbourhood, Scenes, ByScenes>,
    counters: CatalogCounters,
    worked: AtomicBool,
}

impl StacCatalog {
    /// Prepares searches; asks nothing yet.
    ///
    /// # Errors
    /// [`CatalogError::Query`] for settings that cannot work.
    pub fn new(http: Arc<Http>, settings: CatalogSettings) -> Result<Self, CatalogError> {
        let endpoint = search_url(&settings.url);
        let bad = |why: String| CatalogError::Query { endpoint: redact(settings.url.as_str()), why };
        if settings.url.cannot_be_a_base() || settings.url.host_str().is_none() {
            return Err(bad("stac.url must be an http or https URL".into()));
        }
        if !(settings.neighbourhood_deg.is_finite() && settings.neighbourhood_deg >= 0.01) {
            return Err(bad(format!("a neighbourhood of {} degrees: at least 0.01", settings.neighbourhood_deg)));
        }
        if let Some(base) = &settings.relative_href_base {
            folder_of(base, "id", "collection").map_err(|e| bad(format!("stac.relative_href_base `{base}`: {e}")))?;
        }
        let reader = ItemReader {
            required: settings.required.clone(),
            relative_href_base: settings.relative_href_base.clone(),
            source: endpoint.clone(),
        };
        let known = remembered(&settings).map_err(bad)?;
        Ok(Self {
            http,
            settings,
            endpoint,
            reader,
            known,
            counters: CatalogCounters::default(),
            worked: AtomicBool::new(false),
        })
    }

    /// What it has done so far.
    pub fn counters(&self) -> &CatalogCounters {
        &self.counters
    }

    /// One neighbourhood and season, from the server.
    async fn search(&self, wanted: &Neighbourhood) -> Result<Scenes, CatalogError> {
        self.counters.searches.fetch_add(1, Relaxed);
        let mut request = PageRequest::first(self.endpoint.clone(), self.body(wanted)?);
        let mut scenes = Vec::new();
        let (mut asked, mut items, mut empty) = (HashSet::new(), 0, 0);
        while asked.insert(request.key()) {
            if asked.len() > self.settings.max_pages {
                return Err(self.too_many(self.settings.max_pages, "pages"));
            }
            let mut page = self.page(&request).await?;
            let next = request.next(&page, &self.endpoint)?;
            let features = features(&mut page);
            let returned = features.len();
            items += returned;
            if items > self.settings.max_items {
                return Err(self.too_many(self.settings.max_items, "items"));
            }
            empty = if returned == 0 { empty + 1 } else { 0 };
            scenes.extend(features.into_iter().filter_map(|f| self.scene(f, wanted)).map(Arc::new));
            match next {
                None => return Ok(Arc::new(scenes)),
                Some(_) if self.all_has_come(&page, returned, items) => return Ok(Arc::new(scenes)),
                Some(_) if empty == EMPTY_PAGES => break,
                Some(next) => request = next,
            }
        }
        tracing::warn!(endpoint = %redact(self.endpoint.as_str()), pages = asked.len(), items,
            "the catalog promises further pages but repeats itself or sends empty ones; going on with what came");
        Ok(Arc::new(scenes))
    }

    /// Whether the server says that everything has come, and yet names a next page, as Earth Search does. The number alone is
    /// not believed, since it may be an estimate: the page must also be shorter than it was allowed to be.
    fn all_has_come(&self, page: &Value, returned: usize, items: usize) -> bool {
        let matched = ["/numberMatched", "/context/matched"].iter().find_map(|at| page.pointer(at)?.as_u64());
        (returned as u64) < self.settings.page_items && matched == Some(items as u64)
    }

    fn body(&self, wanted: &Neighbourhood) -> Result<Value, CatalogError> {
        let mut search = stac::api::Search::new()
            .bbox(stac::Bbox::TwoDimensional(wanted.bbox(self.settings.neighbourhood_deg)))
            .datetime(datetime_text(&wanted.interval))
            .collections(wanted.collections.clone())
            .limit(self.settings.page_items);
        if let Some(cloud) = wanted.max_cloud() {
            let query = json!({"eo:cloud_cover": {"lt": cloud}});
            search.items.query = query.as_object().cloned();
        }
        let why =
            |e: serde_json::Error| CatalogError::Query { endpoint: self.endpoint.to_string(), why: e.to_string() };
        serde_json::to_value(search).map_err(why)
    }

    /// One page: JSON with an array of features.
    async fn page(&self, request: &PageRequest) -> Result<Value, CatalogError> {
        let cap = self.settings.max_page_bytes;
        let page = match request.method {
            Method::GET => self.http.get_json(&request.url, cap).await,
            _ => self.http.post_json(&request.url, &request.body, cap).await,
        };
        let (root, worked_before) = (redact(self.settings.url.as_str()), self.worked.load(Relaxed));
        let page = page.map_err(|e| CatalogError::from_http(e, &root, worked_before))?;
        if !page.get("features").is_some_and(Value::is_array) {
            let cause = format!("{} answers JSON without `features`", redact(request.url.as_str()));
            return Err(CatalogError::NotACatalog { root, cause, worked_before });
        }
        self.worked.store(true, Relaxed);
        self.counters.pages.fetch_add(1, Relaxed);
        Ok(page)
    }

    /// A scene, or a reason in the counters; the first of each kind, and those that speak of a broken item, are logged.
    fn scene(&self, feature: Value, wanted: &Neighbourhood) -> Option<Scene> {
        self.counters.items.fetch_add(1, Relaxed);
        let id = feature.get("id").and_then(Value::as_str).unwrap_or("without id").chars().take(80).collect::<String>();
        match self.reader.read(feature) {
            Ok(scene) => {
                self.watch_the_filter(&scene, wanted);
                Some(scene)
            }
            Err(why) if self.counters.left_out(why.kind()) => {
                tracing::warn!(item = id, %why, "item left out; further ones of this kind are only counted");
                None
            }
            Err(why) => {
                tracing::debug!(item = id, %why, "item left out");
                None
            }
        }
    }

    /// A scene that is too cloudy for the search shows that the server ignores the bound, or compares it as text.
    fn watch_the_filter(&self, scene: &Scene, wanted: &Neighbourhood) {
        let ignored = wanted.max_cloud().is_some_and(|max| scene.cloud_cover >= max);
        if ignored && self.counters.filter_ignored.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(item = scene.id, cloud = scene.cloud_cover, endpoint = %redact(self.endpoint.as_str()),
                "the server does not filter by cloud cover as asked; if it compares numbers as text, clear scenes are \
                 missing from its answers: set stac.cloud_on_server = false");
        }
    }

    fn too_many(&self, max: usize, what: &'static str) -> CatalogError {
        CatalogError::TooMany { endpoint: redact(self.endpoint.as_str()), max, what }
    }
}

#[async_trait]
impl Catalog for StacCatalog {
    async fn find(&self, query: &SceneQuery) -> Result<Vec<Arc<Scene>>, CatalogError> {
        self.counters.finds.fetch_add(1, Relaxed);
        let mut found: Vec<Scenes> = Vec::with_capacity(query.intervals.len());
        for interval in &query.intervals {
            let step = self.settings.neighbourhood_deg;
            let cloud = query.max_cloud.filter(|_| self.settings.cloud_on_server);
            let wanted = Neighbourhood::of(query.bbox, step, *interval, cloud, &query.collections);
            found.push(self.known.get_or_insert_async(&wanted, self.search(&wanted)).await?);
        }
        Ok(query.select(found.iter().flat_map(|scenes| scenes.iter())))
    }
}

/// One shard, so that the bound is the one configured; searches are rare enough for one lock.
fn remembered(settings: &CatalogSettings) -> Result<Cache<Neighbourhood, Scenes, ByScenes>, String> {
    let scenes = settings.cached_scenes.max(settings.max_items as u64);
    let options = OptionsBuilder::new().shards(1).estimated_items_capacity(256).weight_capacity(scenes).build();
    let options = options.map_err(|e| format!("the memory for scenes cannot be set up: {e}"))?;
    Ok(Cache::with_options(options, ByScenes, DefaultHashBuilder::default(), DefaultLifecycle::default()))
}

fn features(page: &mut Value) -> Vec<Value> {
    match page.get_mut("features").map(Value::take) {
        Some(Value::Array(features)) => features,
        _ => Vec::new(),
    }
}

/// The search below an API's root; a query (`?token=…`) stays.
fn search_url(root: &Url) -> Url {
    let mut url = root.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/search") { path } else { format!("{path}/search") });
    url
}

/// Both ends included, as STAC reads it: the last millisecond stands for the open end.
fn datetime_text(interval: &Interval) -> String {
    let last = interval.end - TimeDelta::milliseconds(1);
    let start = interval.start.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{start}/{}", last.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::season::Season;

    #[test]
    fn search_is_below_the_root() {
        for (root, search) in [
            ("https://h.example/v1", "https://h.example/v1/search"),
            ("https://h.example/v1/", "https://h.example/v1/search"),
            ("https://h.example", "https://h.example/search"),
            ("https://h.example/v1/search", "https://h.example/v1/search"),
            ("https://h.example/v1?key=k", "https://h.example/v1/search?key=k"),
        ] {
            assert_eq!(search_url(&root.parse().unwrap()).as_str(), search);
        }
    }

    #[test]
    fn windows_as_stac_reads_them() {
        let winter = Season::new("winter", "2023-01-01", "2023-03-20").unwrap().interval;
        assert_eq!(datetime_text(&winter), "2023-01-01T00:00:00Z/2023-03-20T23:59:59.999Z");
    }
}
