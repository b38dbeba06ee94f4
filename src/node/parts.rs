//! Builds the doors of a node from its configuration.

use std::path::Path;
use std::sync::Arc;

use url::Url;

use super::config::{self, Compression, Config, Harmonise, Invalid, Resampling, Widen};
use super::error::NodeError;
use crate::actors::rasteriser::LabelRules;
use crate::actors::sampler::ParcelRules;
use crate::adapters::broker::{Broker, EmbeddedBroker, EmbeddedLimits, KafkaBroker, KafkaConfig, TopicSpec};
use crate::adapters::catalog::{Catalog, CatalogSettings, StacCatalog};
use crate::adapters::dataset::disk::DiskStore;
use crate::adapters::dataset::s3::{S3Place, S3Settings, S3Store};
use crate::adapters::dataset::{DatasetStore, StoreError};
use crate::adapters::geotiff;
use crate::adapters::http::{Http, HttpSettings, Trust};
use crate::adapters::imagery::cut;
use crate::adapters::parcels::{GeoPackage, LayerChoice, OpenOptions, ParcelSource};
use crate::domain::band::Band;
use crate::domain::candidate::Widened;
use crate::domain::chip_name::NameTemplate;
use crate::domain::class_table::ClassTable;
use crate::domain::harmonise;
use crate::domain::pixels::Limits;
use crate::domain::season::{Season, Seasons};

/// The built-in classes file.
pub const CLASSES_CSV: &str = include_str!("../../config/classes/eurocrops.csv");

fn setting(key: &'static str, error: impl std::fmt::Display) -> NodeError {
    NodeError::Setting { key, why: error.to_string() }
}

/// The rules that give parcels their class.
///
/// # Errors
/// A file that cannot be read or used.
pub fn classes(config: &Config) -> Result<Arc<ClassTable>, NodeError> {
    let table = match config.parcels.classes() {
        None => ClassTable::parse(CLASSES_CSV, "built-in eurocrops.csv")?,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(NodeError::system(format!("parcels.classes: reading {}", path.display())))?;
            ClassTable::parse(&text, &path.display().to_string())?
        }
    };
    Ok(Arc::new(table))
}

/// The parcels.
///
/// # Errors
/// A file that cannot be read or used.
pub fn parcels(config: &Config, classes: Arc<ClassTable>) -> Result<Arc<dyn ParcelSource>, NodeError> {
    let own = |text: Option<&str>| text.map(str::to_owned);
    let options = OpenOptions {
        choice: LayerChoice {
            layer: own(config.parcels.layer()),
            code_column: own(config.parcels.code_column()),
            name_column: own(config.parcels.name_column()),
        },
        assume_immutable: config.parcels.assume_immutable,
    };
    Ok(Arc::new(GeoPackage::open(&config.parcels.path, options, classes)?))
}

/// The broker: the one configured, or a new embedded one.
///
/// # Errors
/// Unusable properties; a cluster that does not answer within `kafka.connect_timeout_s`.
pub async fn broker(config: &Config, client: &str) -> Result<Arc<dyn Broker>, NodeError> {
    let kafka = &config.kafka;
    if kafka.is_embedded() {
        return Ok(Arc::new(EmbeddedBroker::new(EmbeddedLimits::default())));
    }
    let settings = KafkaConfig {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        client_id: client.to_owned(),
        properties: kafka.properties.as_map().clone(),
        connect_timeout: kafka.connect_timeout,
    };
    Ok(Arc::new(KafkaBroker::connect(settings).await?))
}

/// The topics of the configuration. The result, dead-letter and control topics need no parallelism.
pub fn topics(config: &Config) -> Vec<TopicSpec> {
    let kafka = &config.kafka;
    let spec = |name: &str, partitions| {
        let mut spec = TopicSpec::new(name, partitions);
        spec.replication = kafka.replication;
        spec
    };
    vec![
        spec(&kafka.tasks_topic, kafka.partitions),
        spec(&kafka.results_topic, 1),
        spec(&kafka.dlq_topic, 1),
        spec(&kafka.control_topic, 1).compacted(),
        spec(&kafka.status_topic, 1).compacted(),
    ]
}

/// Hosts the operator wrote down himself are trusted; what items say is not.
fn trust(config: &Config) -> Result<Trust, NodeError> {
    let mut written = vec![stac_url(config)?];
    if let Some(base) = config.stac.relative_href_base() {
        written.push(Url::parse(base).map_err(|e| setting("stac.relative_href_base", e))?);
    }
    let imagery = &config.imagery;
    Ok(Trust::new(written).private_hosts(imagery.allow_private_hosts).file_hrefs(imagery.allow_file_hrefs))
}

fn stac_url(config: &Config) -> Result<Url, NodeError> {
    Url::parse(config.stac.url.as_str()).map_err(|e| setting("stac.url", e))
}

/// HTTP for images.
///
/// # Errors
/// Unusable settings.
pub fn imagery_http(config: &Config) -> Result<Arc<Http>, NodeError> {
    Ok(Arc::new(Http::new(HttpSettings {
        connect_timeout: config.imagery.connect_timeout,
        read_timeout: config.imagery.read_timeout,
        body_timeout: config.imagery.read_timeout * 2,
        per_host: config.imagery.requests_per_host,
        bodies: 2 * cores(config) + 2,
        trust: trust(config)?,
        ..HttpSettings::default()
    })?))
}

/// Threads of the pool.
pub fn cores(config: &Config) -> usize {
    config.worker.cores(std::thread::available_parallelism().map_or(1, usize::from))
}

/// HTTP for the catalog.
///
/// # Errors
/// Unusable settings.
pub fn catalog_http(config: &Config) -> Result<Arc<Http>, NodeError> {
    Ok(Arc::new(Http::new(HttpSettings {
        connect_timeout: config.imagery.connect_timeout,
        read_timeout: config.stac.timeout,
        body_timeout: config.stac.timeout,
        per_host: config.stac.requests_in_flight,
        trust: trust(config)?,
        ..HttpSettings::default()
    })?))
}

/// The STAC catalog.
///
/// # Errors
/// Unusable settings.
pub fn catalog(config: &Config, http: Arc<Http>) -> Result<Arc<dyn Catalog>, NodeError> {
    let mut settings = CatalogSettings::new(stac_url(config)?);
    settings.relative_href_base = config.stac.relative_href_base().map(str::to_owned);
    settings.neighbourhood_deg = config.stac.neighbourhood;
    settings.cloud_on_server = config.stac.cloud_on_server;
    settings.required = bands(config)?;
    Ok(Arc::new(StacCatalog::new(http, settings)?))
}

/// The bands of a chip, in order.
///
/// # Errors
/// A name that is no band's.
pub fn bands(config: &Config) -> Result<Vec<Band>, NodeError> {
    config.chips.bands.iter().map(|b| b.parse().map_err(|e| setting("chips.bands", e))).collect()
}

/// The seasons.
///
/// # Errors
/// Dates that are none, or an unknown name.
pub fn seasons(config: &Config) -> Result<Seasons, NodeError> {
    let all = config.stac.seasons.iter().map(|(name, [first, last])| Season::new(name, first, last));
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|e| setting("stac.seasons", e))?;
    let seasons = Seasons::new(all).map_err(|e| setting("stac.seasons", e))?;
    match config.stac.season.as_str() {
        config::RANDOM_SEASON => Ok(seasons),
        config::ALL_SEASONS => Ok(seasons.every()),
        config::SEASON_BY_CLASS => {
            let of = config.stac.by_class.iter().map(|(class, name)| (*class, name.as_str()));
            seasons.by_class(of).map_err(|e| setting("stac.by_class", e))
        }
        name => seasons.always(name).map_err(|e| setting("stac.season", e)),
    }
}

/// Where the search for a scene ends.
pub fn widest(config: &Config) -> Widened {
    match config.stac.widen {
        Widen::None => Widened::No,
        Widen::Cloud => Widened::Cloud,
        Widen::Season => Widened::Season,
    }
}

/// What a chip may hold of what nobody wants.
pub fn limits(config: &Config) -> Limits {
    let chips = &config.chips;
    Limits { bad: chips.max_bad_fraction, nodata: chips.max_nodata_fraction, suspect: chips.max_suspect_fraction }
}

/// What of the parcels becomes a label.
pub fn label_rules(config: &Config) -> LabelRules {
    let labels = &config.labels;
    LabelRules { erode_m: labels.erode_m, unlabelled: labels.unlabelled, min_share: labels.min_share }
}

/// What a parcel must be to be a centre or a label.
pub fn parcel_rules(config: &Config) -> ParcelRules {
    ParcelRules {
        repair: config.labels.invalid == Invalid::Repair,
        min_area_m2: config.sampling.min_area_m2,
        min_distance_m: config.sampling.min_distance_m,
    }
}

/// What is done about the BOA offset.
pub fn harmonise(config: &Config) -> harmonise::Mode {
    match config.chips.harmonise {
        Harmonise::Auto => harmonise::Mode::Auto,
        Harmonise::Stac => harmonise::Mode::Stac,
        Harmonise::None => harmonise::Mode::None,
    }
}

/// The template of chip names.
///
/// # Errors
/// A template that gives unsafe or equal names.
pub fn names(config: &Config) -> Result<NameTemplate, NodeError> {
    let template = NameTemplate::parse(&config.output.name_template).map_err(|e| setting("output.name_template", e))?;
    Ok(if config.stac.season == config::ALL_SEASONS { template.of_a_series() } else { template })
}

/// The dataset: a bucket, which must exist, or a directory. The directory's parent must exist; it itself is made unless
/// a marker is asked for, because then a missing directory means a missing mount.
///
/// # Errors
/// As [`DatasetStore::check`].
pub fn store(config: &Config) -> Result<Arc<dyn DatasetStore>, NodeError> {
    let names_the_run = names(config)?.names_the_run();
    if let Some(place) = config.output.bucket() {
        let store = bucket(config, place, config.output.require_marker, names_the_run)?;
        store.check()?;
        return Ok(Arc::new(store));
    }
    let dir: &Path = &config.output.dir;
    if !config.output.require_marker
        && let Err(e) = std::fs::create_dir(dir)
        && e.kind() != std::io::ErrorKind::AlreadyExists
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(NodeError::system(format!("output.dir: creating {}", dir.display()))(e));
    }
    let store = DiskStore::new(dir, config.output.require_marker, names_the_run);
    store.check()?;
    Ok(Arc::new(store))
}

/// A dataset in a bucket of the configured service; nobody is asked yet.
///
/// # Errors
/// Settings that cannot be used.
pub fn bucket(
    config: &Config,
    place: S3Place,
    require_marker: bool,
    names_the_run: bool,
) -> Result<S3Store, NodeError> {
    let endpoint = config.output.s3_endpoint().map(str::to_owned);
    let allow_http = config.output.s3_allow_http;
    Ok(S3Store::new(&S3Settings { place, endpoint, allow_http, require_marker, names_the_run })?)
}

/// The directory of a dataset that is looked at as files.
///
/// # Errors
/// What is not there; a bucket, with the way to make a directory of it.
pub fn directory(dir: &Path) -> Result<&Path, NodeError> {
    match dir.to_str().filter(|text| S3Place::is_meant(text)) {
        Some(bucket) => Err(NodeError::NoDirectory(bucket.trim_end_matches('/').to_owned())),
        None if dir.is_dir() => Ok(dir),
        None => Err(StoreError::Missing(dir.display().to_string()).into()),
    }
}

/// How files are compressed.
pub fn compression(config: &Config) -> geotiff::Compression {
    let level = config.output.compression_level;
    match config.output.compression {
        Compression::Zstd => geotiff::Compression::Zstd(level),
        Compression::Deflate => geotiff::Compression::Deflate(level.clamp(1, 12) as u8),
        Compression::None => geotiff::Compression::None,
    }
}

/// How coarser bands are resampled.
pub fn resampling(config: &Config) -> cut::Resampling {
    match config.chips.resampling {
        Resampling::Nearest => cut::Resampling::Nearest,
        Resampling::Bilinear => cut::Resampling::Bilinear,
    }
}

/// Colours and names of the mask's values: those of the classes file, black for what has no label.
pub fn mask_look(config: &Config, classes: &ClassTable) -> geotiff::MaskLook {
    let unlabelled = config.labels.unlabelled;
    let mut palette = [[0; 3]; 256];
    let mut names = vec![(unlabelled, if unlabelled == 0 { "background" } else { "unlabelled" }.to_owned())];
    for (class, info) in classes.classes() {
        palette[usize::from(class.get())] = info.colour;
        names.push((class.get(), info.name.clone()));
    }
    geotiff::MaskLook { palette, names, nodata: unlabelled }
}

/// This process's name towards the broker and in results.
pub fn worker_id(config: &Config) -> String {
    config.worker.id(&super::config::host_name(), std::process::id())
}
