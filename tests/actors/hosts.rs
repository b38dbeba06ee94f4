//! The breakers of the image hosts: each its own, and a host that never gave anything is no outage while others answer.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::hosts::Hosts;
use satellite_pipeline::actors::retry::{GiveUp, retry_on};
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::source::{MemorySource, RangeSource};
use satellite_pipeline::domain::failure::{Failure, Severity};
use tokio_util::sync::CancellationToken;

use super::scene_kit::{CENTRE, dn, files, scene};
use super::stage::QUICK;

/// Three hosts with the same files; one of them, or all, may be down.
struct Pair {
    files: MemorySource,
    down: Mutex<&'static str>,
}

impl Pair {
    fn reach(&self, href: &str) -> Result<(), Failure> {
        let down = *self.down.lock().unwrap();
        if down.is_empty() || !href.contains(down) {
            return Ok(());
        }
        Err(Failure::transient("pixels", format!("{href}: no connection")))
    }
}

#[async_trait]
impl RangeSource for Pair {
    async fn range(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.reach(href)?;
        self.files.range(href, range).await
    }
    async fn range_upto(&self, href: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        self.reach(href)?;
        self.files.range_upto(href, range).await
    }
}

struct Bed {
    source: Arc<Pair>,
    imagery: Arc<Imagery>,
    hosts: Arc<Hosts>,
}

impl Bed {
    fn new(patience: Duration) -> Self {
        let bytes = files(&scene("first", 32631, CENTRE, 180, 1.0), dn).remove(0).1;
        let names = ["http://a.test/1", "http://a.test/2", "http://b.test/1", "http://b.test/2", "http://c.test/1"];
        let files = names.iter().fold(MemorySource::default(), |all, name| all.with(*name, bytes.clone()));
        let source = Arc::new(Pair { files, down: Mutex::new("") });
        let cpu = CpuPool::new(1).unwrap();
        let imagery = Arc::new(Imagery::new(source.clone(), cpu.pool(), 1 << 20));
        Self { source, hosts: Arc::new(Hosts::new(imagery.clone(), patience)), imagery }
    }

    async fn open(&self, href: &str) -> Result<(), GiveUp> {
        let open = || async { self.imagery.open(href).await.map_err(|e| e.failure()) };
        retry_on(&self.hosts.of(href), QUICK, &CancellationToken::new(), open).await.map(|_| ())
    }

    fn down(&self, host: &'static str) {
        *self.source.down.lock().unwrap() = host;
    }
}

async fn opened(bed: &Bed, href: &str) {
    while !bed.hosts.of(href).is_open() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn severity(end: Result<(), GiveUp>) -> Severity {
    match end {
        Err(GiveUp::Failed(failure)) => failure.severity,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dead_host_holds_its_own_tasks_and_nobody_else_s() {
    let bed = Bed::new(Duration::from_secs(60));
    for href in ["http://a.test/1", "http://b.test/1"] {
        bed.open(href).await.unwrap();
    }
    bed.down("b.test");
    let held = bed.open("http://b.test/2");
    tokio::pin!(held);
    tokio::select! {
        end = &mut held => panic!("not held: {end:?}"),
        () = opened(&bed, "http://b.test/9") => {}
    }
    assert!(bed.hosts.any_open() && !bed.hosts.of("http://a.test/9").is_open());
    bed.open("http://a.test/2").await.unwrap();
    bed.down("");
    held.await.unwrap();
    assert!(!bed.hosts.any_open());
}

#[tokio::test]
async fn a_host_that_worked_and_stays_away_stops_the_node() {
    let bed = Bed::new(Duration::from_millis(60));
    bed.open("http://a.test/1").await.unwrap();
    bed.open("http://b.test/1").await.unwrap();
    bed.down("b.test");
    assert_eq!(severity(bed.open("http://b.test/2").await), Severity::Fatal);
}

#[tokio::test]
async fn a_wrong_host_in_an_item_fails_its_task_only_while_others_answer() {
    let bed = Bed::new(Duration::from_millis(60));
    bed.open("http://a.test/1").await.unwrap();
    bed.down("c.test");
    assert_eq!(severity(bed.open("http://c.test/1").await), Severity::Transient);
    assert!(!bed.hosts.any_open());
    bed.down("test");
    assert_eq!(severity(bed.open("http://c.test/1").await), Severity::Fatal);
}
