//! What the controller tells people in events. They are a convenience: one that cannot be posted is logged and forgotten.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// How long one event may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest note that Kubernetes takes, less what a cut off character may need.
const LONGEST_NOTE: usize = 1000;

/// Posts events about the controller's own pod: what they tell of has no object of its own any more.
#[derive(Clone)]
pub struct Herald {
    api: Api<Event>,
    pod: ObjectReference,
}

impl std::fmt::Debug for Herald {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Herald").field("pod", &self.pod.name).finish_non_exhaustive()
    }
}

impl Herald {
    /// For the pod of that name.
    pub fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let pod = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.into()),
            name: Some(pod.into()),
            ..ObjectReference::default()
        };
        Self { api: Api::namespaced(client, namespace), pod }
    }

    /// Posts a warning.
    pub async fn warn(&self, reason: &str, note: &str) {
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some("rds-csi-controller-".into()),
                namespace: self.pod.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: self.pod.clone(),
            type_: Some("Warning".into()),
            reason: Some(reason.into()),
            message: Some(note.chars().take(LONGEST_NOTE).collect()),
            source: Some(EventSource { component: Some("rds-csi-controller".into()), host: None }),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        let params = PostParams::default();
        match tokio::time::timeout(DEADLINE, self.api.create(&params, &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(reason, %error, "the event was not posted"),
            Err(_) => tracing::debug!(reason, "the event was not posted within {DEADLINE:?}"),
        }
    }
}
