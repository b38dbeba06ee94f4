//! Why a command ends without having done its work, and with which exit code.
//!
//! Contract: exit code 2 says "change the command line or the configuration", 1 "the work failed or is
//! incomplete". Messages are complete sentences for a person; they name what to change.

use crate::adapters::broker::BrokerError;
use crate::adapters::catalog::CatalogError;
use crate::adapters::crs::CrsError;
use crate::adapters::dataset::StoreError;
use crate::adapters::finished::FinishError;
use crate::adapters::http::HttpError;
use crate::adapters::parcels::ParcelError;
use crate::demo::DemoError;
use crate::domain::class_table::ClassTableError;
use crate::domain::failure::Severity;
use crate::domain::plan::PlanError;
use crate::node::config::ConfigErrors;

/// See the head of this file.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// One value of the configuration that only another part of the program can judge.
    #[error("{key}: {why}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The classes file.
    #[error("parcels.classes: {0}")]
    Classes(#[from] ClassTableError),
    /// The parcels.
    #[error("{0}")]
    Parcels(#[from] ParcelError),
    /// The plan.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The broker.
    #[error("{0}")]
    Broker(#[from] BrokerError),
    /// The dataset.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is made of a dataset.
    #[error("{0}")]
    Finish(#[from] FinishError),
    /// The catalog.
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    /// `node topics`.
    #[error("{0}")]
    Topics(#[from] super::topics::TopicsError),
    /// `node group`.
    #[error("{0}")]
    Group(#[from] super::group::GroupError),
    /// HTTP itself.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// A CRS.
    #[error("{0}")]
    Crs(#[from] CrsError),
    /// The demonstration's generator or server.
    #[error("{0}")]
    Demo(#[from] DemoError),
    /// A bucket where files are needed.
    #[error("{0} is a bucket, and this command reads files: copy it first, for instance by `aws s3 sync {0} DIR`")]
    NoDirectory(String),
    /// Something the operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The node had to stop before its work was done.
    #[error("{0}")]
    Stopped(String),
    /// The work is done as far as it goes, and something is missing.
    #[error("{0}")]
    Incomplete(String),
}

impl NodeError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Setting { .. } | Self::Classes(_) => 2,
            Self::Parcels(e) if e.severity() != Severity::Transient => 2,
            Self::Broker(BrokerError::Property { .. }) => 2,
            Self::Plan(_) | Self::Topics(super::topics::TopicsError::NobodyToAsk) => 2,
            Self::Store(
                StoreError::Missing(_)
                | StoreError::NotMounted(_)
                | StoreError::OtherRun { .. }
                | StoreError::Unmarked(_)
                | StoreError::Unusable { .. },
            ) => 2,
            Self::NoDirectory(_) => 2,
            Self::Finish(FinishError::Empty(_)) => 2,
            _ => 1,
        }
    }

    /// An operating system's refusal, with what was tried.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}
