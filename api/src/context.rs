//! The two maps that travel with a volume, as types: what CreateVolume tells everybody for the volume's whole life, and
//! what ControllerPublish tells one node.
//!
//! Their keys and the form of their values are shared with the Go driver, whose PVs are served as they are.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::bytes::Bytes;
use crate::nqn::Nqn;
use crate::reconnect::ReconnectPolicy;
use crate::text::{Malformed, text_newtype};
use crate::trace::TraceParent;

const NVME_PORT: u16 = 4420;

/// How long a migration may take if nothing is said.
pub const MIGRATION_TIMEOUT: Duration = Duration::from_mins(5);

/// Where the array exports volumes over NVMe/TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal {
    /// An address, since the kernel resolves no names.
    pub address: IpAddr,
    /// 4420 unless configured otherwise.
    pub port: u16,
}

impl Portal {
    /// Reads the parameters `nvmeAddress` and `nvmePort`; without a port it is 4420.
    pub fn parse(address: &str, port: Option<&str>) -> Result<Self, Malformed> {
        let address = address
            .parse()
            .map_err(|_| Malformed::new("nvmeAddress", address, "give an IPv4 or IPv6 address"))?;
        let port = match port {
            None => NVME_PORT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Malformed::new("nvmePort", text, "give a TCP port, 1 to 65535"))?,
        };
        Ok(Self { address, port })
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// The directory of flat image files that the Go driver keeps volumes in: absolute, of a closed alphabet, without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePath(String);

text_newtype!(VolumePath);

impl FromStr for VolumePath {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let name = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        };
        let valid = text.len() <= 200 && text.strip_prefix('/').is_some_and(|path| path.split('/').all(name));
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new(
                "volumePath",
                text,
                "give an absolute path of letters, digits, '.', '_' and '-', such as /storage-pool/volumes",
            ))
        }
    }
}

/// Reads the parameter `migrationTimeoutSeconds`: 30 to 3600, 300 if it is not given.
pub fn parse_migration_timeout(text: Option<&str>) -> Result<Duration, Malformed> {
    let Some(text) = text else {
        return Ok(MIGRATION_TIMEOUT);
    };
    text.parse()
        .ok()
        .filter(|seconds| (30..=3600).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| Malformed::new("migrationTimeoutSeconds", text, "give 30 to 3600 seconds"))
}

/// Who may hold a volume together with another node (`restrictToKubevirt`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Together {
    /// Whoever asks for an access mode that is shared.
    #[default]
    Anybody,
    /// Only a VM that KubeVirt migrates from the one node to the other.
    KubevirtOnly,
}

impl Together {
    /// The parameter's name.
    pub const KEY: &str = "restrictToKubevirt";

    /// Reads the parameter; [`Self::Anybody`] if it is not given.
    pub fn parse(text: Option<&str>) -> Result<Self, Malformed> {
        match text {
            None | Some("false") => Ok(Self::Anybody),
            Some("true") => Ok(Self::KubevirtOnly),
            Some(other) => Err(Malformed::new(Self::KEY, other, "give true or false")),
        }
    }
}

/// A key that must be there, and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is missing or empty.
    #[error("{context} has no {key}: it is not one that this driver or the Go driver wrote")]
    Missing {
        /// Which of the two maps.
        context: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The key's value cannot be read.
    #[error("{context} cannot be read: {reason}")]
    Malformed {
        /// Which of the two maps.
        context: &'static str,
        /// What is wrong with the value.
        reason: Malformed,
    },
}

/// What is true of a volume for its whole life (`Volume.volume_context`, kept in the PV).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeContext {
    /// `rdsAddress`: the array's address for control, for people to read; nothing is decided by it.
    pub array_address: Option<String>,
    /// `nvmeAddress` and `nvmePort`.
    pub portal: Portal,
    /// `nqn`: what the volume was exported under when it was created. A publish may know better.
    pub nqn: Nqn,
    /// `volumePath`, of volumes in flat image files.
    pub volume_path: Option<VolumePath>,
    /// `ctrlLossTmo`, `reconnectDelay`, `keepAliveTmo`, `fastIoFailTmo`.
    pub reconnect: ReconnectPolicy,
    /// `migrationTimeoutSeconds`.
    pub migration_timeout: Duration,
    /// `restrictToKubevirt`.
    pub together: Together,
}

impl VolumeContext {
    const NAME: &str = "the volume context";

    /// Reads the map. Keys that are not ours are left alone: Kubernetes adds some of its own.
    pub fn parse(map: &HashMap<String, String>) -> Result<Self, Error> {
        let fields = Fields { context: Self::NAME, map };
        let malformed = |reason| Error::Malformed { context: Self::NAME, reason };
        Ok(Self {
            array_address: fields.optional("rdsAddress").map(Into::into),
            portal: fields.portal()?,
            nqn: fields.required("nqn")?.parse().map_err(malformed)?,
            volume_path: fields.optional("volumePath").map(str::parse).transpose().map_err(malformed)?,
            reconnect: ReconnectPolicy::parse(|key| fields.optional(key)).map_err(malformed)?,
            migration_timeout: parse_migration_timeout(fields.optional("migrationTimeoutSeconds"))
                .map_err(malformed)?,
            together: Together::parse(fields.optional(Together::KEY)).map_err(malformed)?,
        })
    }

    /// The map for the wire.
    pub fn to_map(&self) -> HashMap<String, String> {
        let Self { array_address, portal, nqn, volume_path, reconnect, migration_timeout, together } = self;
        let mut map = HashMap::from([
            ("nvmeAddress", portal.address.to_string()),
            ("nvmePort", portal.port.to_string()),
            ("nqn", nqn.to_string()),
            ("migrationTimeoutSeconds", migration_timeout.as_secs().to_string()),
        ]);
        map.extend(reconnect.to_pairs());
        map.extend(array_address.clone().map(|address| ("rdsAddress", address)));
        map.extend(volume_path.as_ref().map(|path| ("volumePath", path.to_string())));
        map.extend((*together == Together::KubevirtOnly).then(|| (Together::KEY, "true".into())));
        map.into_iter().map(|(key, value)| (key.into(), value)).collect()
    }
}

/// What is true of one attachment (`ControllerPublishVolumeResponse.publish_context`). The node trusts it over the
/// volume context: a volume that was fenced has another NQN since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishContext {
    /// `nvmeAddress` and `nvmePort`.
    pub portal: Portal,
    /// `nqn`: what the volume is exported under now.
    pub nqn: Nqn,
    /// `sizeBytes`: what the array says the device has. It may have grown since, and never shrinks.
    pub size: Bytes,
    /// The same keys as in the volume context, all of them or none: the volume's policy now, if it is another than when the
    /// volume was created.
    pub reconnect: Option<ReconnectPolicy>,
    /// `traceparent`: the span that attached the volume. Left out if tracing is off.
    pub trace: Option<TraceParent>,
}

impl PublishContext {
    const NAME: &str = "the publish context";

    /// Reads the map. A trace context that cannot be read is dropped: tracing never fails an attach.
    pub fn parse(map: &HashMap<String, String>) -> Result<Self, Error> {
        let fields = Fields { context: Self::NAME, map };
        let malformed = |reason| Error::Malformed { context: Self::NAME, reason };
        let size = fields.required("sizeBytes")?;
        let reconnect = ReconnectPolicy::KEYS.iter().any(|key| fields.optional(key).is_some());
        Ok(Self {
            portal: fields.portal()?,
            nqn: fields.required("nqn")?.parse().map_err(malformed)?,
            size: size
                .parse()
                .map(Bytes::new)
                .map_err(|_| malformed(Malformed::new("sizeBytes", size, "give a whole number of bytes")))?,
            reconnect: reconnect
                .then(|| ReconnectPolicy::parse(|key| fields.optional(key)))
                .transpose()
                .map_err(malformed)?,
            trace: fields.optional("traceparent").and_then(|text| text.parse().ok()),
        })
    }

    /// The map for the wire.
    pub fn to_map(&self) -> HashMap<String, String> {
        let Self { portal, nqn, size, reconnect, trace } = self;
        let mut map = HashMap::from([
            ("nvmeAddress", portal.address.to_string()),
            ("nvmePort", portal.port.to_string()),
            ("nqn", nqn.to_string()),
            ("sizeBytes", size.get().to_string()),
        ]);
        map.extend(reconnect.iter().flat_map(|policy| policy.to_pairs()));
        map.extend(trace.as_ref().map(|trace| ("traceparent", trace.to_string())));
        map.into_iter().map(|(key, value)| (key.into(), value)).collect()
    }
}

struct Fields<'a> {
    context: &'static str,
    map: &'a HashMap<String, String>,
}

impl<'a> Fields<'a> {
    /// An empty value is as good as none: the Go driver writes some.
    fn optional(&self, key: &str) -> Option<&'a str> {
        self.map.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn required(&self, key: &'static str) -> Result<&'a str, Error> {
        self.optional(key).ok_or(Error::Missing { context: self.context, key })
    }

    fn portal(&self) -> Result<Portal, Error> {
        Portal::parse(self.required("nvmeAddress")?, self.optional("nvmePort"))
            .map_err(|reason| Error::Malformed { context: self.context, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn a_volume_of_the_go_driver_is_understood() {
        let context = VolumeContext::parse(&map(&[
            ("rdsAddress", "10.42.241.3"),
            ("nvmeAddress", "10.42.68.1"),
            ("nvmePort", "4420"),
            ("nqn", "nqn.2000-02.com.mikrotik:pvc-1"),
            ("volumePath", "/storage-pool/metal-csi"),
            ("ctrlLossTmo", "-1"),
            ("storage.kubernetes.io/csiProvisionerIdentity", "1"),
        ]))
        .unwrap();
        assert_eq!(context.portal.to_string(), "10.42.68.1:4420");
        assert_eq!(context.migration_timeout.as_secs(), 300);
        assert_eq!(context.together, Together::Anybody);
        assert_eq!(VolumeContext::parse(&context.to_map()), Ok(context.clone()));
        let restricted = VolumeContext { together: Together::KubevirtOnly, ..context };
        assert_eq!(VolumeContext::parse(&restricted.to_map()), Ok(restricted));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let nqn = ("nqn", "nqn.2000-02.com.mikrotik:pvc-1");
        let error = |pairs: &[(&str, &str)]| VolumeContext::parse(&map(pairs)).unwrap_err().to_string();
        assert!(error(&[nqn]).contains("no nvmeAddress"));
        assert!(error(&[("nvmeAddress", "array.local"), nqn]).contains("nvmeAddress \"array.local\""));
        assert!(error(&[("nvmeAddress", "::1"), ("nvmePort", "0"), nqn]).contains("nvmePort \"0\""));
        assert!(error(&[("nvmeAddress", "::1")]).contains("no nqn"));
        for path in ["pool", "/pool/../etc", "/pool//x", "/po ol", "/"] {
            assert!(
                error(&[("nvmeAddress", "::1"), nqn, ("volumePath", path)]).contains("volumePath"),
                "{path}"
            );
        }
        assert!(
            error(&[("nvmeAddress", "::1"), nqn, ("restrictToKubevirt", "yes")])
                .contains("give true or false")
        );
        for seconds in ["29", "3601", "soon"] {
            let pairs = [("nvmeAddress", "::1"), nqn, ("migrationTimeoutSeconds", seconds)];
            assert!(error(&pairs).contains("30 to 3600"));
        }
    }

    #[test]
    fn a_publish_context_survives_the_wire_and_a_bad_trace() {
        let context = PublishContext {
            portal: Portal::parse("fd00::1", None).unwrap(),
            nqn: "nqn.2000-02.com.mikrotik:pvc-1:e2".parse().unwrap(),
            size: Bytes::new(1_649_267_441_665),
            reconnect: None,
            trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap()),
        };
        let mut wire = context.to_map();
        assert_eq!(PublishContext::parse(&wire), Ok(context.clone()));
        wire.insert("traceparent".into(), "nonsense".into());
        assert_eq!(PublishContext::parse(&wire), Ok(PublishContext { trace: None, ..context }));
    }
    #[test]
    fn a_publish_context_carries_a_policy_whole_or_not_at_all() {
        let context = PublishContext {
            portal: Portal::parse("10.0.0.1", None).unwrap(),
            nqn: "nqn.2000-02.com.mikrotik:pvc-1".parse().unwrap(),
            size: Bytes::gib(1),
            reconnect: Some("600,5,30,20".parse().unwrap()),
            trace: None,
        };
        let mut wire = context.to_map();
        assert_eq!(wire["fastIoFailTmo"], "20");
        assert_eq!(PublishContext::parse(&wire), Ok(context));
        wire.insert("ctrlLossTmo".into(), "soon".into());
        let error = PublishContext::parse(&wire).unwrap_err().to_string();
        assert!(error.contains("publish context") && error.contains("ctrlLossTmo \"soon\""), "{error}");
        wire.retain(|key, _| !ReconnectPolicy::KEYS.contains(&key.as_str()));
        assert_eq!(PublishContext::parse(&wire).unwrap().reconnect, None);
    }
}
