//! Certificates for the internal API, as a cluster's issuer would hand them out: one authority, one name per program.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

/// The name in the controller's certificate, the only one that node agents answer.
pub const CONTROLLER: &str = "rds-csi-controller";

/// The name in a certificate that all node agents share; in one of a node's own the node's name stands before it.
pub const NODE_AGENT: &str = "rds-csi-node-agent";

/// The name in the certificate of a node's own agent.
pub fn agent_of(node: &str) -> String {
    format!("{node}.{NODE_AGENT}")
}

/// An authority, and the folder in which it leaves its certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// Where the certificate of one program lies.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The authority's own certificate.
    pub authority: PathBuf,
    /// The program's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority that nobody else trusts.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("ca.crt"), issuer.pem())?;
        Ok(Self { issuer, folder: folder.into() })
    }

    /// A certificate, and its key, for whoever goes by that DNS name.
    pub fn issue(&self, name: &str) -> anyhow::Result<Identity> {
        self.issue_for(name, &[name])
    }

    /// A certificate, and its key, for the agents of these nodes.
    pub fn issue_for_agents(&self, nodes: &[&str]) -> anyhow::Result<Identity> {
        let names: Vec<_> = nodes.iter().map(|node| agent_of(node)).collect();
        self.issue_for(&nodes.join("-"), &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A certificate, and its key, for whoever is reached by these DNS names and addresses; `name` is its file's.
    pub fn issue_for(&self, name: &str, reached: &[&str]) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        let reached: Vec<_> = reached.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(reached)?.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            authority: self.folder.join("ca.crt"),
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, certificate.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}

impl std::fmt::Debug for Authority {
    /// Without its key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}
