//! The parameters of a StorageClass. An unknown key is an error: a misspelt one would otherwise be a default.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rds_csi_api::context::{VolumePath, parse_migration_timeout};
use rds_csi_api::text::Malformed;
use rds_csi_api::{Failure, FsType, Kind, Portal, ReconnectPolicy};

use crate::array::{KubeName, Label, Pool};

/// What belongs to the sidecars, not to us.
const SIDECARS: &str = "csi.storage.k8s.io/";

/// A StorageClass's wishes for its volumes, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `nvmeAddress`, `nvmePort`: where nodes connect, and on which port the array exports.
    pub portal: Portal,
    /// `volumePath`: kept in the volume's context for whoever reads it. New volumes lie in subvolumes of the pool.
    pub volume_path: Option<VolumePath>,
    /// `ctrlLossTmo`, `reconnectDelay`, `keepAliveTmo`, `fastIoFailTmo`.
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
    #[error("StorageClass parameter {key:?} = {value:?} is not known: remove it, or use one of {known}")]
    Unknown {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The keys that are.
        known: String,
    },
    /// A value that cannot be read.
    #[error("a parameter of the StorageClass is malformed")]
    Malformed(#[from] Malformed),
    /// A volume path that is not in the pool.
    #[error(
        "StorageClass parameter volumePath {path:?} is not in the pool {pool}: give a path below /{pool}"
    )]
    OtherPool {
        /// The path.
        path: VolumePath,
        /// The pool.
        pool: Pool,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } | Self::Malformed(_) | Self::OtherPool { .. } => Kind::Invalid,
        }
    }
}

impl Parameters {
    /// Reads the map. What is not given is as the array's own `portal` and the driver's defaults have it.
    pub fn parse(map: &HashMap<String, String>, portal: Portal, pool: &Pool) -> Result<Self, Error> {
        let (sidecars, mut ours): (BTreeMap<_, _>, BTreeMap<_, _>) = map
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .partition(|(key, _)| key.starts_with(SIDECARS));
        let mut known = Vec::new();
        let mut take = |key: &'static str| {
            known.push(key);
            ours.remove(key)
        };
        let (address, port) = (take("nvmeAddress"), take("nvmePort"));
        let path = take("volumePath");
        let reconnect = ReconnectPolicy::parse(&mut take);
        let migration_timeout = take("migrationTimeoutSeconds");
        if let Some((key, value)) = ours.pop_first() {
            return Err(Error::Unknown { key: key.into(), value: value.into(), known: known.join(", ") });
        }

        let (own_address, own_port) = (portal.address.to_string(), portal.port.to_string());
        Ok(Self {
            portal: Portal::parse(address.unwrap_or(&own_address), Some(port.unwrap_or(&own_port)))?,
            volume_path: path.map(|path| volume_path(path, pool)).transpose()?,
            reconnect: reconnect?,
            migration_timeout: parse_migration_timeout(migration_timeout)?,
            label: label(&sidecars)?,
        })
    }
}

fn volume_path(text: &str, pool: &Pool) -> Result<VolumePath, Error> {
    let path: VolumePath = text.parse()?;
    match path.as_str().strip_prefix('/').and_then(|path| path.strip_prefix(pool.as_str())) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Ok(path),
        _ => Err(Error::OtherPool { path, pool: pool.clone() }),
    }
}

/// Of the sidecars' keys the filesystem type is checked, since it fails later and farther away, and the names are taken.
fn label(sidecars: &BTreeMap<&str, &str>) -> Result<Label, Error> {
    if let Some(fs) = sidecars.get("csi.storage.k8s.io/fstype") {
        fs.parse::<FsType>()?;
    }
    let name = |key| sidecars.get(key).map(|text| KubeName::parse(key, text)).transpose();
    Ok(Label {
        pv: name("csi.storage.k8s.io/pv/name")?,
        namespace: name("csi.storage.k8s.io/pvc/namespace")?,
        pvc: name("csi.storage.k8s.io/pvc/name")?,
    })
}

#[cfg(test)]
mod tests {
    use rds_csi_api::status::chain;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters, Error> {
        let map = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let portal = Portal::parse("10.0.0.1", Some("4421")).unwrap();
        Parameters::parse(&map, portal, &"storage-pool".parse().unwrap())
    }

    #[test]
    fn without_parameters_the_array_itself_says_where_it_is() {
        let parameters = parse(&[]).unwrap();
        assert_eq!(parameters.portal.to_string(), "10.0.0.1:4421");
        assert_eq!(parameters.reconnect, ReconnectPolicy::STANDARD);
        assert_eq!((parameters.volume_path, parameters.label), (None, Label::default()));
    }

    #[test]
    fn a_storage_class_of_the_go_driver_is_understood() {
        let parameters = parse(&[
            ("nvmeAddress", "10.42.68.1"),
            ("nvmePort", "4420"),
            ("volumePath", "/storage-pool/metal-csi"),
            ("ctrlLossTmo", "-1"),
            ("reconnectDelay", "5"),
            ("keepAliveTmo", "30"),
            ("migrationTimeoutSeconds", "600"),
            ("csi.storage.k8s.io/fstype", "xfs"),
            ("csi.storage.k8s.io/pv/name", "pvc-1"),
            ("csi.storage.k8s.io/pvc/name", "db-0"),
            ("csi.storage.k8s.io/pvc/namespace", "shop"),
            ("csi.storage.k8s.io/provisioner-secret-name", "whatever"),
        ])
        .unwrap();
        assert_eq!(parameters.portal.to_string(), "10.42.68.1:4420");
        assert_eq!(parameters.migration_timeout, Duration::from_mins(10));
        assert_eq!(parameters.label.to_string(), " pv=pvc-1 pvc=shop/db-0");
        assert_eq!(parameters.volume_path.unwrap().as_str(), "/storage-pool/metal-csi");
    }

    #[test]
    fn what_is_unknown_or_malformed_is_named_with_its_value_and_the_way_out() {
        for (key, value, fix) in [
            ("nvmeAdress", "10.0.0.1", "use one of nvmeAddress, nvmePort"),
            ("nvmeAddress", "array.local", "give an IPv4 or IPv6 address"),
            ("nvmePort", "", "give a TCP port"),
            ("volumePath", "../x", "give an absolute path"),
            ("volumePath", "/storage-pool-2/x", "below /storage-pool"),
            ("ctrlLossTmo", "never", "give -1"),
            ("reconnectDelay", "0", "give 1"),
            ("keepAliveTmo", "5s", "give 1"),
            ("fastIoFailTmo", "never", "give off"),
            ("migrationTimeoutSeconds", "1", "give 30 to 3600"),
            ("csi.storage.k8s.io/fstype", "ntfs", "give ext4, ext3 or xfs"),
            ("csi.storage.k8s.io/pvc/name", "a b", "lower-case letters"),
        ] {
            let error = chain(&parse(&[(key, value)]).unwrap_err());
            let named = error.contains(key) || error.contains("filesystem type");
            assert!(named && error.contains(&format!("{value:?}")) && error.contains(fix), "{error}");
        }
    }
}
