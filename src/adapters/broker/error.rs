//! What can go wrong with a broker, and what the node does about it.
//!
//! Contract: a transient broker fault never leaves this room as an error while it is still being retried (the client
//! library retries; nobody else does). So what arrives here as `Fatal` has already been given all the time that was
//! configured. Errors are `Clone`: they are also shown by a watch that several readers look at.

use crate::domain::failure::Severity;

/// An error of the broker room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// No broker answered for the whole time that is configured for it.
    #[error(
        "no Kafka broker at {servers} answered for {seconds} s (last: {last}): is it running and is \
         kafka.bootstrap_servers right? A listener with TLS or SASL needs security.protocol in kafka.properties"
    )]
    Unreachable {
        /// The bootstrap addresses tried.
        servers: String,
        /// How long it was tried, seconds.
        seconds: u64,
        /// What the client library said last.
        last: String,
    },
    /// A topic that has to be there is not.
    #[error("topic `{topic}` does not exist: create it with `node topics create`")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// A partition outside the topic's.
    #[error("topic `{topic}` has no partition {partition}: grow it with `node topics create`")]
    UnknownPartition {
        /// Topic.
        topic: String,
        /// The number that was asked for.
        partition: i32,
    },
    /// The message does not fit.
    #[error("message of {bytes} bytes for topic `{topic}` is larger than the {limit} allowed")]
    TooLarge {
        /// Topic it was meant for.
        topic: String,
        /// Its size, bytes.
        bytes: usize,
        /// The limit, bytes; 0 when only the broker knows it.
        limit: usize,
    },
    /// The broker refused us: authentication or authorisation.
    #[error("the broker refused access ({why}): check kafka.properties (security.protocol, sasl.*) and the ACLs")]
    Denied {
        /// What it said.
        why: String,
    },
    /// The broker's certificate did not convince us.
    #[error(
        "the broker's certificate is not trusted ({why}): check kafka.properties (ssl.ca.location) and that the \
         certificate names the host in kafka.bootstrap_servers"
    )]
    Untrusted {
        /// What the client library said.
        why: String,
    },
    /// A property that cannot be used.
    #[error("kafka.properties.{key}: {why}")]
    Property {
        /// Its name.
        key: String,
        /// What is wrong, and what is allowed.
        why: String,
    },
    /// A request that took too long.
    #[error("{what} did not finish within {seconds} s")]
    Timeout {
        /// The request.
        what: String,
        /// The time it was given, seconds.
        seconds: u64,
    },
    /// Any other answer of the broker or the client library.
    #[error("{what}: {why}")]
    Refused {
        /// The request.
        what: String,
        /// What was said.
        why: String,
        /// What to do about it.
        severity: Severity,
    },
    /// The member or the broker was closed on our side.
    #[error("{what}: the connection to the broker is closed")]
    Closed {
        /// The request.
        what: String,
    },
}

impl BrokerError {
    /// What the node does about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Timeout { .. } => Severity::Transient,
            Self::TooLarge { .. } => Severity::Permanent,
            Self::Refused { severity, .. } => *severity,
            Self::Unreachable { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::Denied { .. }
            | Self::Untrusted { .. }
            | Self::Property { .. }
            | Self::Closed { .. } => Severity::Fatal,
        }
    }
}
