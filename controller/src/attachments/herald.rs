//! What people are told about a volume's attachments: one line in the log, one event on the claim, one number.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rds_csi_api::{NodeName, VolumeId};

/// Something that happened to a volume's attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node wanted it that must not have it now.
    Conflict {
        /// The node.
        node: NodeName,
        /// Which rule forbids it, and what to do.
        why: String,
    },
    /// A second node holds it.
    MigrationStarted {
        /// The node that held it before.
        from: NodeName,
        /// The second one.
        to: NodeName,
        /// By whose word it is a migration.
        proof: String,
    },
    /// The first node has let it go.
    MigrationCompleted {
        /// The first node.
        from: NodeName,
        /// The one that has it now.
        to: NodeName,
        /// How long both held it.
        took: Duration,
    },
    /// The second node has let it go, or neither does.
    MigrationFailed {
        /// The first node.
        from: NodeName,
        /// The second one.
        to: NodeName,
        /// How long both have held it.
        took: Duration,
        /// What happened, and what is left to do.
        why: String,
    },
    /// A node that may have been writing was shut out.
    Fenced {
        /// The node.
        node: NodeName,
        /// Why it was not trusted.
        why: String,
    },
    /// A node was recorded, or let in, that was not to hold it any more.
    StaleCleared {
        /// The node.
        node: NodeName,
    },
}

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

impl Event {
    /// Its name on the claim.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "AttachmentConflict",
            Self::MigrationStarted { .. } => "MigrationStarted",
            Self::MigrationCompleted { .. } => "MigrationCompleted",
            Self::MigrationFailed { .. } => "MigrationFailed",
            Self::Fenced { .. } => "VolumeFenced",
            Self::StaleCleared { .. } => "StaleAttachmentCleared",
        }
    }

    /// Whether somebody should look.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::MigrationStarted { .. } | Self::MigrationCompleted { .. } | Self::StaleCleared { .. } => {
                Severity::Normal
            }
            Self::Conflict { .. } | Self::MigrationFailed { .. } | Self::Fenced { .. } => Severity::Warning,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { node, why } => write!(f, "node {node} does not get the volume: {why}"),
            Self::MigrationStarted { from, to, proof } => {
                write!(f, "nodes {from} and {to} hold the volume from now on ({proof})")
            }
            Self::MigrationCompleted { from, to, took } => {
                write!(f, "node {from} has let the volume go to {to}, after {} s", took.as_secs())
            }
            Self::MigrationFailed { from, to, took, why } => {
                write!(f, "the volume did not go from node {from} to {to} within {} s: {why}", took.as_secs())
            }
            Self::Fenced { node, why } => {
                write!(
                    f,
                    "node {node} cannot write to the volume any more: the array shuts it out, since {why}"
                )
            }
            Self::StaleCleared { node } => {
                write!(
                    f,
                    "node {node} was still let in to the volume, which it is not to hold any more; it is not now"
                )
            }
        }
    }
}

/// Whoever passes on to people what happens.
pub trait Herald: Send + Sync + 'static {
    /// What is counted, for the metrics.
    fn tally(&self) -> &Tally;

    /// Posts the event on the volume's claim, at some time, if it can be. It never waits.
    fn post(&self, volume: &VolumeId, event: &Event);

    /// Logs the event, counts it and posts it.
    fn tell(&self, volume: &VolumeId, event: &Event) {
        tracing::info!(%volume, reason = event.reason(), "{event}");
        self.tally().count(event);
        self.post(volume, event);
    }
}

/// How often what happened.
#[derive(Debug, Clone)]
pub struct Tally {
    migrations: Family<Outcome, Counter>,
    durations: Histogram,
    cleared: Counter,
    conflicts: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

const COMPLETED: Outcome = Outcome { result: "completed" };
const FAILED: Outcome = Outcome { result: "failed" };

impl Default for Tally {
    fn default() -> Self {
        let migrations = Family::default();
        for outcome in [COMPLETED, FAILED] {
            drop(migrations.get_or_create(&outcome));
        }
        // From a VM that is idle to one that is as large and busy as KubeVirt waits for.
        let durations = Histogram::new([1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]);
        Self { migrations, durations, cleared: Counter::default(), conflicts: Counter::default() }
    }
}

impl Tally {
    /// Shown by the registry.
    pub fn register(&self, registry: &mut Registry) {
        let Self { migrations, durations, cleared, conflicts } = self.clone();
        registry.register(
            "rds_csi_migrations",
            "Volumes that went to a second node, by how it ended",
            migrations,
        );
        let help = "How long two nodes held a volume, in seconds";
        registry.register("rds_csi_migration_duration_seconds", help, durations);
        let help =
            "Nodes that a record or the array still named, and that were not to hold the volume any more";
        registry.register("rds_csi_stale_attachments_cleared", help, cleared);
        let help = "Attachments that were refused since another node holds the volume";
        registry.register("rds_csi_attachment_conflicts", help, conflicts);
    }

    fn count(&self, event: &Event) {
        match event {
            Event::MigrationCompleted { took, .. } => {
                self.migrations.get_or_create(&COMPLETED).inc();
                self.durations.observe(took.as_secs_f64());
            }
            Event::MigrationFailed { took, .. } => {
                self.migrations.get_or_create(&FAILED).inc();
                self.durations.observe(took.as_secs_f64());
            }
            Event::StaleCleared { .. } => {
                self.cleared.inc();
            }
            Event::Conflict { .. } => {
                self.conflicts.inc();
            }
            Event::MigrationStarted { .. } | Event::Fenced { .. } => {}
        }
    }
}
