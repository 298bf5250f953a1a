//! The parameters of a StorageClass. An unknown key is an error: a misspelt one would otherwise be a default.

use std::collections::HashMap;
use std::time::Duration;

use rds_csi_api::context::{VolumePath, parse_migration_timeout};
use rds_csi_api::text::Malformed;
use rds_csi_api::{FsType, Portal, ReconnectPolicy};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::MapDeserializer;

use crate::array::{Label, Pool};

/// What belongs to the sidecars, not to us.
const SIDECARS: &str = "csi.storage.k8s.io/";

/// A StorageClass's wishes for its volumes, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `nvmeAddress`, `nvmePort`: where nodes connect, and on which port the array exports.
    pub portal: Portal,
    /// `volumePath`: kept in the volume's context for whoever reads it. New volumes lie in subvolumes of the pool.
    pub volume_path: Option<VolumePath>,
    /// `ctrlLossTmo`, `reconnectDelay`, `keepAliveTmo`.
    pub reconnect: ReconnectPolicy,
    /// `migrationTimeoutSeconds`.
    pub migration_timeout: Duration,
    /// Names that the provisioner adds with `--extra-create-metadata`.
    pub label: Label,
}

/// Why the parameters cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key that is not known.
    #[error("StorageClass parameter {key:?} = {value:?} is not known: remove it, or use one of {}", KEYS.join(", "))]
    Unknown {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A value that cannot be read.
    #[error("StorageClass parameter {0}")]
    Malformed(#[from] Malformed),
    /// A volume path that is not in the pool.
    #[error("StorageClass parameter volumePath {path:?} is not in the pool {pool}: give a path below /{pool}")]
    OtherPool {
        /// The path.
        path: VolumePath,
        /// The pool.
        pool: String,
    },
}

/// The keys of [`Texts`].
const KEYS: [&str; 7] = [
    "nvmeAddress", "nvmePort", "volumePath", "ctrlLossTmo", "reconnectDelay", "keepAliveTmo", "migrationTimeoutSeconds",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Texts {
    nvme_address: Option<String>,
    nvme_port: Option<String>,
    volume_path: Option<String>,
    ctrl_loss_tmo: Option<String>,
    reconnect_delay: Option<String>,
    keep_alive_tmo: Option<String>,
    migration_timeout_seconds: Option<String>,
}

impl Parameters {
    /// Reads the map. What is not given is as the array's own `portal` and the driver's defaults have it.
    pub fn parse(map: &HashMap<String, String>, portal: Portal, pool: &Pool) -> Result<Self, Error> {
        let (sidecars, ours): (HashMap<_, _>, HashMap<_, _>) =
            map.iter().map(|(key, value)| (key.as_str(), value.as_str())).partition(|(key, _)| key.starts_with(SIDECARS));
        if let Some(fs) = sidecars.get("csi.storage.k8s.io/fstype") {
            fs.parse::<FsType>()?;
        }
        if let Some((key, value)) = ours.iter().find(|(key, _)| !KEYS.contains(key)) {
            return Err(Error::Unknown { key: (*key).into(), value: (*value).into() });
        }
        let pairs = ours.into_iter().map(|(key, value)| (key, Some(value).into_deserializer()));
        todo!()
    }
}
