//! The dashboard, the scrape example and the metrics they speak of agree.
//!
//! Contract: every metric a panel asks for is one that nodes explain, and every one that nodes explain is set somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of metrics in a text, as words.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours =
        |w: &&str| w.starts_with("satellite_") && *w != "satellite_pipeline" || *w == "process_resident_memory_bytes";
    words.filter(ours).map(str::to_owned).collect()
}

/// What nodes explain (`# HELP`), and what their sources set.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    let probes = fs::read_to_string(root().join("src/node/probes.rs")).unwrap();
    let (code, rest) = probes.split_once("fn describe() {").unwrap();
    let (described, _) = rest.split_once("#[cfg(test)]").unwrap();
    let mut set = names(code);
    for room in ["src/actors", "src/node"] {
        for file in fs::read_dir(root().join(room)).unwrap().map(|e| e.unwrap().path()) {
            if file.is_file() && !file.ends_with("probes.rs") {
                set.extend(names(&fs::read_to_string(file).unwrap()));
            }
        }
    }
    (names(described), set)
}

#[test]
fn every_metric_of_a_panel_is_explained_and_every_explained_one_is_set() {
    let (described, set) = known();
    assert!(described.len() > 20, "{described:?}");
    assert_eq!(described.difference(&set).collect::<Vec<_>>(), Vec::<&String>::new(), "explained, and set nowhere");
    assert_eq!(set.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new(), "set, and explained nowhere");
    let text = fs::read_to_string(root().join("config/grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels with one number");
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().unwrap();
        let place = ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap());
        assert!(place[0] + place[2] <= 24, "{title} reaches beyond the right edge");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let found = names(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{title} asks for nothing");
            asked.extend(found);
        }
    }
    let plain = |name: &String| {
        let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        series.to_owned()
    };
    let unknown: Vec<String> = asked.iter().map(plain).filter(|name| !described.contains(name)).collect();
    assert!(unknown.is_empty(), "panels ask for what no node says: {unknown:?}");
    assert!(asked.len() >= 18, "{asked:?}");
}
