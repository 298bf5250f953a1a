//! What the controller tells people in events. They are a convenience: they delay nobody, and one that cannot be posted is
//! logged and forgotten. What happens again and again is one event with a number.

mod repeats;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::repeats::{Post, Repeats};
use super::objects::Claim;
use crate::attachments::herald::Severity;

/// How long one event may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest note that Kubernetes takes, less what a cut off character may need.
const LONGEST_NOTE: usize = 1000;

/// How long Kubernetes keeps an event, unless it is told otherwise.
const KEPT: Duration = Duration::from_hours(1);

/// How many notes wait to be posted.
const WAITING: usize = 256;

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// What it is about.
    pub object: Object,
    /// Whether somebody should look.
    pub severity: Severity,
    /// In one word, which never changes.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// What tells it from the same at another time, if it may come several times itself.
    pub once: Option<Once>,
}

/// Something that happened at one time, and may be heard of more often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Once {
    /// The event's name in Kubernetes, which makes no two of one name.
    pub event: String,
    /// When it happened, since 1970.
    pub at: Duration,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// A PersistentVolumeClaim.
    Claim(Claim),
    /// A PersistentVolume of that name, which nobody claims.
    Volume(String),
    /// The controller's own pod: what it tells of has no object of its own any more.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Object {
    fn reference(&self) -> ObjectReference {
        let (kind, namespace, name, uid) = match self {
            Self::Claim(Claim { namespace, name, uid }) => {
                ("PersistentVolumeClaim", Some(namespace), name, Some(uid))
            }
            Self::Volume(name) => ("PersistentVolume", None, name, None),
            Self::Pod { namespace, name } => ("Pod", Some(namespace), name, None),
        };
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            namespace: namespace.cloned(),
            name: Some(name.clone()),
            uid: uid.filter(|uid| !uid.is_empty()).cloned(),
            ..ObjectReference::default()
        }
    }

    /// Where events about it are; about what has no namespace they are in this one.
    fn namespace(&self) -> &str {
        match self {
            Self::Claim(Claim { namespace, .. }) | Self::Pod { namespace, .. } => namespace,
            Self::Volume(_) => "default",
        }
    }
}

/// Takes notes, and never waits.
#[derive(Debug, Clone)]
pub struct Mailbox(mpsc::Sender<Note>);

impl Mailbox {
    /// To be posted at some time. Lost, if too many wait already.
    pub fn put(&self, note: Note) {
        if let Err(error) = self.0.try_send(note) {
            let (mpsc::error::TrySendError::Full(note) | mpsc::error::TrySendError::Closed(note)) = error;
            tracing::debug!(
                reason = note.reason,
                message = note.message,
                "the event is not posted: too many wait"
            );
        }
    }
}

/// Tells of what has no object of its own any more.
#[derive(Debug, Clone)]
pub struct Herald {
    mailbox: Mailbox,
    pod: Object,
}

impl Herald {
    /// On the controller's own pod.
    pub fn new(mailbox: Mailbox, namespace: &str, name: &str) -> Self {
        Self { mailbox, pod: Object::Pod { namespace: namespace.into(), name: name.into() } }
    }

    /// Something that somebody should look at.
    pub fn warn(&self, reason: &str, message: String) {
        let (object, severity, reason) = (self.pod.clone(), Severity::Warning, reason.into());
        self.mailbox.put(Note { object, severity, reason, message, once: None });
    }
}

/// Posts what is put into its mailbox.
pub struct Poster {
    client: Client,
    notes: mpsc::Receiver<Note>,
    repeats: Repeats,
}

impl Poster {
    /// A mailbox, and who empties it.
    pub fn new(client: Client) -> (Mailbox, Self) {
        let (sender, notes) = mpsc::channel(WAITING);
        (Mailbox(sender), Self { client, notes, repeats: Repeats::default() })
    }

    /// Posts until the token is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while let Some(Some(note)) = shutdown.run_until_cancelled(self.notes.recv()).await {
            let posted = shutdown.run_until_cancelled(tokio::time::timeout(DEADLINE, self.post(&note))).await;
            match posted {
                None => return,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    tracing::debug!(reason = note.reason, %error, "the event was not posted");
                }
                Some(Err(_)) => {
                    tracing::debug!(reason = note.reason, "the event was not posted within {DEADLINE:?}");
                }
            }
        }
    }

    async fn post(&mut self, note: &Note) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), note.object.namespace());
        let now = Time(Timestamp::now());
        // Kubernetes has forgotten what is older, and would take it for new.
        if note.once.as_ref().is_some_and(|once| since(once.at) > KEPT) {
            return Ok(());
        }
        match self.repeats.next(note, Instant::now()) {
            Post::Nothing => Ok(()),
            Post::Again { event, count } => {
                let patch = Patch::Merge(json!({ "count": count, "lastTimestamp": now }));
                match api.patch(&event, &PatchParams::default(), &patch).await {
                    Ok(_) => Ok(()),
                    // Events are kept for an hour; it is told anew the next time.
                    Err(error) => {
                        self.repeats.forget(note);
                        Err(error)
                    }
                }
            }
            Post::Anew => {
                let name = match api.create(&PostParams::default(), &event(note, now)).await {
                    Ok(posted) => posted.metadata.name.unwrap_or_default(),
                    // Another replica has read it before.
                    Err(kube::Error::Api(refusal)) if refusal.code == 409 => return Ok(()),
                    Err(error) => return Err(error),
                };
                self.repeats.posted(note, name, Instant::now());
                Ok(())
            }
        }
    }
}

fn event(note: &Note, now: Time) -> Event {
    let kind = match note.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    let (name, generate_name, at) = match &note.once {
        Some(Once { event, at }) => (Some(event.clone()), None, time(*at).unwrap_or(now)),
        None => (None, Some("rds-csi-controller-".into()), now),
    };
    Event {
        metadata: ObjectMeta {
            name,
            generate_name,
            namespace: Some(note.object.namespace().into()),
            ..ObjectMeta::default()
        },
        involved_object: note.object.reference(),
        type_: Some(kind.into()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.chars().take(LONGEST_NOTE).collect()),
        source: Some(EventSource { component: Some("rds-csi-controller".into()), host: None }),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at),
        count: Some(1),
        ..Event::default()
    }
}

/// How long ago that was.
fn since(at: Duration) -> Duration {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.saturating_sub(at)
}

fn time(since_1970: Duration) -> Option<Time> {
    Some(Time(Timestamp::from_second(i64::try_from(since_1970.as_secs()).ok()?).ok()?))
}
