//! The parameters of a StorageClass. An unknown key is an error: a misspelt one would otherwise be a default.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rds_csi_api::context::{Together, VolumePath, parse_migration_timeout};
use rds_csi_api::reconnect::NotMutable;
use rds_csi_api::text::Malformed;
use rds_csi_api::{BackendName, Failure, FsType, Kind, Portal, ReconnectPolicy};

use crate::array::{Digest, KubeName, Label, Pool};

/// What belongs to the sidecars, not to us.
const SIDECARS: &str = "csi.storage.k8s.io/";

/// But for this, which says what is to be made.
const FSTYPE: &str = "csi.storage.k8s.io/fstype";

const BACKEND: &str = "backend";

/// A StorageClass's wishes for its volumes, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `nvmeAddress`, `nvmePort`: where nodes connect, and on which port the array exports.
    pub portal: Portal,
    /// `volumePath`: kept in the volume's context for whoever reads it. New volumes lie in subvolumes of the pool.
    pub volume_path: Option<VolumePath>,
    /// `ctrlLossTmo`, `reconnectDelay`, `keepAliveTmo`, `fastIoFailTmo`, with the changes of a VolumeAttributesClass.
    pub reconnect: ReconnectPolicy,
    /// `migrationTimeoutSeconds`.
    pub migration_timeout: Duration,
    /// `restrictToKubevirt`.
    pub together: Together,
    /// Names that the provisioner adds with `--extra-create-metadata`.
    pub label: Label,
    /// Of everything that was given, but the names: another one would make another volume.
    pub digest: Digest,
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
    /// A VolumeAttributesClass that changes what it cannot.
    #[error("the VolumeAttributesClass cannot be kept")]
    NotMutable(#[from] NotMutable),
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
            Self::Unknown { .. } | Self::Malformed(_) | Self::NotMutable(_) | Self::OtherPool { .. } => {
                Kind::Invalid
            }
        }
    }
}

impl Parameters {
    /// Reads only which array is meant; the default one if none is named.
    pub fn backend(map: &HashMap<String, String>) -> Result<Option<BackendName>, Error> {
        Ok(map.get(BACKEND).map(|name| name.parse()).transpose()?)
    }

    /// Reads the maps of a StorageClass and a VolumeAttributesClass. What is not given is as the array's own `portal` and the
    /// driver's defaults have it.
    pub fn parse(
        map: &HashMap<String, String>,
        changes: &HashMap<String, String>,
        portal: Portal,
        pool: &Pool,
    ) -> Result<Self, Error> {
        Self::backend(map)?;
        let digest = digest(map, changes);
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
        take(BACKEND);
        let reconnect = ReconnectPolicy::parse(&mut take);
        let migration_timeout = take("migrationTimeoutSeconds");
        let together = take(Together::KEY);
        if let Some((key, value)) = ours.pop_first() {
            return Err(Error::Unknown { key: key.into(), value: value.into(), known: known.join(", ") });
        }

        let (own_address, own_port) = (portal.address.to_string(), portal.port.to_string());
        Ok(Self {
            portal: Portal::parse(address.unwrap_or(&own_address), Some(port.unwrap_or(&own_port)))?,
            volume_path: path.map(|path| volume_path(path, pool)).transpose()?,
            reconnect: reconnect?.modified(changes)?,
            migration_timeout: parse_migration_timeout(migration_timeout)?,
            together: Together::parse(together)?,
            label: label(&sidecars)?,
            digest,
        })
    }
}

/// The names that the provisioner adds are those of the same claim at every repeat, or nobody's who asks by hand.
fn digest(map: &HashMap<String, String>, changes: &HashMap<String, String>) -> Digest {
    let given = map.iter().filter(|(key, _)| !key.starts_with(SIDECARS) || *key == FSTYPE);
    let given = given.map(|(key, value)| (key.clone(), value));
    let added = changes.iter().map(|(key, value)| (format!("VolumeAttributesClass/{key}"), value));
    let all: Vec<_> = given.chain(added).collect();
    Digest::of(all.iter().map(|(key, value)| (key.as_str(), value.as_str())))
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
    if let Some(fs) = sidecars.get(FSTYPE) {
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

    fn both(pairs: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Parameters, Error> {
        let [map, changes] = [pairs, changes]
            .map(|pairs| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
        let portal = Portal::parse("10.0.0.1", Some("4421")).unwrap();
        Parameters::parse(&map, &changes, portal, &"storage-pool".parse().unwrap())
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters, Error> {
        both(pairs, &[])
    }

    #[test]
    fn what_makes_another_volume_makes_another_digest_and_names_do_not() {
        let digest = |pairs, changes| both(pairs, changes).unwrap().digest;
        let plain = digest(&[("ctrlLossTmo", "600")], &[]);
        assert_eq!(plain, digest(&[("ctrlLossTmo", "600"), ("csi.storage.k8s.io/pv/name", "pvc-1")], &[]));
        for (pairs, changes) in [
            (&[][..], &[][..]),
            (&[("ctrlLossTmo", "601")], &[]),
            (&[("ctrlLossTmo", "600"), ("backend", "rack-2")], &[]),
            (&[("ctrlLossTmo", "600"), ("csi.storage.k8s.io/fstype", "xfs")], &[]),
            (&[], &[("ctrlLossTmo", "600")]),
            (&[("ctrlLossTmo", "600")], &[("fastIoFailTmo", "20")]),
        ] {
            assert_ne!(plain, digest(pairs, changes), "{pairs:?} {changes:?}");
        }
    }

    #[test]
    fn a_volume_attributes_class_changes_what_the_storage_class_says() {
        let parameters = both(&[("ctrlLossTmo", "600"), ("keepAliveTmo", "30")], &[("ctrlLossTmo", "-1")]);
        assert_eq!(parameters.unwrap().reconnect.to_string(), "-1,2,30,off");
        let refused = chain(&both(&[], &[("nvmePort", "4422")]).unwrap_err());
        assert!(refused.contains("VolumeAttributesClass") && refused.contains("\"nvmePort\""), "{refused}");
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
            ("restrictToKubevirt", "true"),
            ("csi.storage.k8s.io/fstype", "xfs"),
            ("csi.storage.k8s.io/pv/name", "pvc-1"),
            ("csi.storage.k8s.io/pvc/name", "db-0"),
            ("csi.storage.k8s.io/pvc/namespace", "shop"),
            ("csi.storage.k8s.io/provisioner-secret-name", "whatever"),
        ])
        .unwrap();
        assert_eq!(parameters.portal.to_string(), "10.42.68.1:4420");
        assert_eq!(parameters.migration_timeout, Duration::from_mins(10));
        assert_eq!(parameters.together, Together::KubevirtOnly);
        assert_eq!(parameters.label.to_string(), " pv=pvc-1 pvc=shop/db-0");
        assert_eq!(parameters.volume_path.unwrap().as_str(), "/storage-pool/metal-csi");
    }

    #[test]
    fn what_is_unknown_or_malformed_is_named_with_its_value_and_the_way_out() {
        for (key, value, fix) in [
            ("nvmeAdress", "10.0.0.1", "use one of nvmeAddress, nvmePort"),
            ("nvmeAddress", "array.local", "give an IPv4 or IPv6 address"),
            ("nvmePort", "", "give a TCP port"),
            ("backend", "Rack 2", "give 1 to 24"),
            ("volumePath", "../x", "give an absolute path"),
            ("volumePath", "/storage-pool-2/x", "below /storage-pool"),
            ("ctrlLossTmo", "never", "give -1"),
            ("reconnectDelay", "0", "give 1"),
            ("keepAliveTmo", "5s", "give 1"),
            ("fastIoFailTmo", "never", "give off"),
            ("migrationTimeoutSeconds", "1", "give 30 to 3600"),
            ("restrictToKubevirt", "yes", "give true or false"),
            ("csi.storage.k8s.io/fstype", "ntfs", "give ext4, ext3 or xfs"),
            ("csi.storage.k8s.io/pvc/name", "a b", "lower-case letters"),
        ] {
            let error = chain(&parse(&[(key, value)]).unwrap_err());
            let named = error.contains(key) || error.contains("filesystem type");
            assert!(named && error.contains(&format!("{value:?}")) && error.contains(fix), "{error}");
        }
    }
}
