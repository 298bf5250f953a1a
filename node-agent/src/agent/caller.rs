//! Who calls the internal API. TLS has verified the certificate; whose it is, is decided here.

use rustls::pki_types::{DnsName, ServerName};
use tonic::Request;
use webpki::EndEntityCert;

/// The DNS name in the controller's certificate. Nodes' certificates are of the same authority and have others.
const CONTROLLER: &str = "rds-csi-controller";

/// Somebody else than the controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    /// There is no certificate, which TLS should not have let through.
    #[error("the caller has no certificate: only {CONTROLLER} is answered")]
    Nobody,
    /// It is of another name.
    #[error("the caller's certificate is not for {CONTROLLER} ({0}): only {CONTROLLER} is answered")]
    Other(webpki::Error),
}

/// Lets only the controller pass.
pub(super) fn check<T>(request: &Request<T>) -> Result<(), Stranger> {
    let certificates = request.peer_certs().ok_or(Stranger::Nobody)?;
    let certificate = certificates.first().ok_or(Stranger::Nobody)?;
    let name = DnsName::try_from(CONTROLLER).map_err(|_| Stranger::Nobody)?;
    EndEntityCert::try_from(certificate)
        .and_then(|certificate| certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)))
        .map_err(Stranger::Other)
}
