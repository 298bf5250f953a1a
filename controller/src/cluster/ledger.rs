//! Kubernetes as what attachments rest on: its objects decide, an annotation of the PersistentVolume is the record, and
//! events on the claim tell people.

mod authority;
mod store;

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rds_csi_api::{VolumeId, status};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Followed, follow};
use super::events::{Mailbox, Note, Object, Once};
use super::objects::{Attachment, Node, Pod, RUNNING, Volume};
use crate::attachments::herald::{Event, Herald, Severity, Tally};

/// How long the API server may take to one question, so that a call that asks it twice still answers its sidecar.
const DEADLINE: Duration = Duration::from_secs(5);

/// The cluster's objects, and a way to ask for them.
#[derive(Clone)]
pub struct Ledger {
    client: Client,
    /// Our PersistentVolumes.
    pub volumes: Cache<Volume>,
    /// Our VolumeAttachments.
    pub attachments: Cache<Attachment>,
    /// All nodes.
    pub nodes: Cache<Node>,
    /// Pods that use a claim or belong to a VM.
    pub pods: Cache<Pod>,
    mailbox: Mailbox,
    tally: Tally,
}

impl Ledger {
    /// Knows nothing until it [follows](Self::follow).
    pub fn new(client: Client, mailbox: Mailbox) -> Self {
        Self {
            client,
            volumes: Cache::default(),
            attachments: Cache::default(),
            nodes: Cache::default(),
            pods: Cache::default(),
            mailbox,
            tally: Tally::default(),
        }
    }

    /// Hears what changes until the token is cancelled.
    pub async fn follow(self, shutdown: CancellationToken) {
        fn everywhere<D: super::cache::Digest>(
            client: &Client,
            cache: Cache<D>,
            fields: Option<&'static str>,
        ) -> Followed<D> {
            Followed { api: Api::all(client.clone()), fields, labels: None, cache }
        }
        let Self { client, volumes, attachments, nodes, pods, .. } = self;
        tokio::join!(
            follow(everywhere(&client, volumes, None), shutdown.clone()),
            follow(everywhere(&client, attachments, None), shutdown.clone()),
            follow(everywhere(&client, nodes, None), shutdown.clone()),
            follow(everywhere(&client, pods, Some(RUNNING)), shutdown.clone()),
        );
    }

    fn persistent_volumes(&self) -> Api<core::PersistentVolume> {
        Api::all(self.client.clone())
    }

    fn volume_attachments(&self) -> Api<storage::VolumeAttachment> {
        Api::all(self.client.clone())
    }

    /// What stands for the volume towards people: its claim, or its PersistentVolume.
    pub fn object(&self, id: &VolumeId) -> Option<Object> {
        let volumes = self.volumes.last()?;
        let volume = volumes.at(id).next()?;
        Some(match &volume.claim {
            Some(claim) => Object::Claim(claim.clone()),
            None => Object::Volume(volume.name.clone()),
        })
    }

    /// Tells people something about a volume, at some time, if it can be.
    pub fn post(&self, id: &VolumeId, severity: Severity, reason: &str, message: String) {
        match self.object(id) {
            Some(object) => {
                let once = None;
                self.mailbox.put(Note { object, severity, reason: reason.into(), message, once });
            }
            None => {
                tracing::debug!(volume = %id, reason, "no event is posted: nothing is known that it could be posted on");
            }
        }
    }
}

/// What others write of volumes.
impl Ledger {
    /// Tells people something that may be told several times, and is to be read once: by an event of this name, of so long
    /// after 1970.
    pub fn post_once(
        &self,
        id: &VolumeId,
        severity: Severity,
        reason: &str,
        message: String,
        event: String,
        at: Duration,
    ) {
        let Some(object) = self.object(id) else {
            tracing::debug!(volume = %id, reason, message, "a node's event is posted nowhere");
            return;
        };
        let once = Some(Once { event, at });
        self.mailbox.put(Note { object, severity, reason: reason.into(), message, once });
    }

    /// Changes a PersistentVolume.
    pub async fn patch(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<serde_json::Value>,
    ) -> Result<(), String> {
        let patched = answer(self.persistent_volumes().patch(name, params, patch)).await;
        self.volumes.learn(patched.map_err(Unanswered::why)?);
        Ok(())
    }
}

/// An answer of the API server, or why there is none.
async fn answer<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Unanswered> {
    match tokio::time::timeout(DEADLINE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(refusal))) if refusal.code == 404 => Err(Unanswered::Missing),
        Ok(Err(kube::Error::Api(refusal))) if refusal.code == 409 => Err(Unanswered::Conflict),
        Ok(Err(error)) => Err(Unanswered::Failed(format!("Kubernetes: {}", status::chain(&error)))),
        Err(_) => Err(Unanswered::Failed(format!("Kubernetes did not answer within {DEADLINE:?}"))),
    }
}

/// Why the API server did not give what it was asked for.
#[derive(Debug)]
enum Unanswered {
    /// There is no such object.
    Missing,
    /// It is not any more what it was taken for.
    Conflict,
    /// It did not say, and why.
    Failed(String),
}

impl Unanswered {
    /// In words.
    fn why(self) -> String {
        match self {
            Self::Missing => "Kubernetes has no such object".into(),
            Self::Conflict => "Kubernetes' object was changed meanwhile".into(),
            Self::Failed(why) => why,
        }
    }
}

/// Its answer, if there is such an object.
fn if_any<T>(answered: Result<T, Unanswered>) -> Result<Option<T>, String> {
    match answered {
        Ok(found) => Ok(Some(found)),
        Err(Unanswered::Missing) => Ok(None),
        Err(unanswered) => Err(unanswered.why()),
    }
}

impl Herald for Ledger {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn post(&self, volume: &VolumeId, event: &Event) {
        Self::post(self, volume, event.severity(), event.reason(), event.to_string());
    }
}
