//! One call of an agent: over a connection of its own, with certificates as they lie there then, and with a deadline.

use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use rds_csi_api::{Failure, Kind, NodeName, status};
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Response, Status};

use super::{Client, Credentials, Error, NodeAgents};

/// A connection that says nothing for so long is asked whether it is there, and so long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why an agent did not answer as it was to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There is no answer: nobody knows what the node does, nor whether it did what it was told.
    #[error("the agent of node {node} does not answer: {why}")]
    Silent {
        /// Which node.
        node: NodeName,
        /// What happened.
        why: String,
    },
    /// It was not asked, or not in a way that it trusts; the node may be well.
    #[error(
        "the agent of node {node} cannot be asked ({why}): check certificates and addresses on both sides"
    )]
    Unasked {
        /// Which node.
        node: NodeName,
        /// What is wrong.
        why: String,
    },
    /// It answered that it will not, or cannot.
    #[error("the agent of node {node} says: {why}")]
    Refused {
        /// Which node.
        node: NodeName,
        /// As what.
        code: Code,
        /// In its own words.
        why: String,
    },
}

impl Unanswered {
    /// What happened, without the node.
    pub fn why(&self) -> &str {
        match self {
            Self::Silent { why, .. } | Self::Unasked { why, .. } | Self::Refused { why, .. } => why,
        }
    }
}

impl Failure for Unanswered {
    fn kind(&self) -> Kind {
        match self {
            Self::Silent { .. } => Kind::Unsure,
            Self::Unasked { .. } => Kind::Unreachable,
            Self::Refused { code, .. } => match code {
                Code::InvalidArgument => Kind::Invalid,
                Code::OutOfRange => Kind::OutOfRange,
                Code::Aborted => Kind::Busy,
                Code::Internal => Kind::Bug,
                _ => Kind::Refused,
            },
        }
    }
}

impl NodeAgents {
    /// Connects to a node's agent, and calls it.
    pub(super) async fn ask<T>(
        &self,
        node: &NodeName,
        limit: Duration,
        call: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, Unanswered> {
        let node = || node.clone();
        let agent = match self {
            Self::None => None,
            Self::At(addresses, credentials) => {
                addresses.get(&node()).map(|authority| (authority, credentials))
            }
        };
        let Some((authority, credentials)) = agent else {
            return Err(Unanswered::Silent { node: node(), why: "it is not known where it is".into() });
        };
        let endpoint = endpoint(&node(), authority, credentials).await;
        let endpoint =
            endpoint.map_err(|error| Unanswered::Unasked { node: node(), why: status::chain(&error) })?;
        let answered = async {
            let channel = match endpoint.connect().await {
                Ok(channel) => channel,
                Err(error) if is_of_tls(&error) => {
                    return Err(Unanswered::Unasked { node: node(), why: status::chain(&error) });
                }
                Err(error) => return Err(Unanswered::Silent { node: node(), why: status::chain(&error) }),
            };
            let answer = call(Client::new(channel)).await;
            answer.map(Response::into_inner).map_err(|status| failed(node(), &status))
        };
        timeout(limit, answered).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", limit.as_secs());
            Err(Unanswered::Silent { node: node(), why })
        })
    }
}

pub(super) async fn endpoint(
    node: &NodeName,
    authority: &str,
    credentials: &Credentials,
) -> Result<Endpoint, Error> {
    let read = async |path: &Path| {
        tokio::fs::read(path).await.map_err(|source| Error::File { path: path.into(), source })
    };
    let Credentials { ca, certificate, key, names } = credentials;
    let tls = ClientTlsConfig::new()
        .domain_name(names.of(node))
        .ca_certificate(Certificate::from_pem(read(ca).await?))
        .identity(Identity::from_pem(read(certificate).await?, read(key).await?));
    Endpoint::from_shared(format!("https://{authority}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map(|endpoint| endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE))
        .map_err(|source| Error::Unusable { authority: authority.into(), source })
}

/// What a call means that failed once somebody was connected. Who answers is alive, and a fence would cut off a node that
/// may be healthy. Only a status with a source was made on this side: then the connection broke, as it does if the agent
/// refuses our certificate. If the agent has died meanwhile, the next question is not even connected.
pub(super) fn failed(node: NodeName, status: &Status) -> Unanswered {
    let why = status::chain(status);
    match status.code() {
        _ if status.source().is_some() => Unanswered::Unasked { node, why },
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Unanswered::Silent { node, why },
        code => Unanswered::Refused { node, code, why },
    }
}

/// Whether TLS is why there is no connection: the machine is there, and one side does not trust the other.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeName {
        "w1".parse().unwrap()
    }

    #[test]
    fn who_answers_with_an_error_is_alive_and_nobody_to_shut_out() {
        for code in (0..=16).map(Code::from).filter(|code| *code != Code::Ok) {
            let silent = matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
            match failed(node(), &Status::new(code, "why")) {
                Unanswered::Silent { .. } => assert!(silent, "{code:?}"),
                Unanswered::Refused { why, .. } => assert!(!silent && why.contains("why"), "{code:?}"),
                Unanswered::Unasked { .. } => panic!("{code:?}"),
            }
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert!(matches!(failed(node(), &broken), Unanswered::Unasked { .. }));
    }

    #[test]
    fn a_fault_of_tls_is_found_beneath_what_wraps_it() {
        let tls = std::io::Error::other(rustls::Error::DecryptError);
        assert!(is_of_tls(&std::io::Error::other(tls)));
        assert!(!is_of_tls(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
    }
}
