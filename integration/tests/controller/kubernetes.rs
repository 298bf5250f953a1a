//! As much of an API server as the controller asks: three lists, page by page, and a place for events. It speaks HTTP, and
//! has what a test puts there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What an answer has at most: less than what is asked for, as an API server may.
const PAGE: usize = 2;

/// What goes wrong with the second page of the PersistentVolumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails.
    Error,
    /// The token of the page has expired.
    Expired,
    /// It never comes.
    Silence,
}

#[derive(Debug, Default)]
struct World {
    volumes: Vec<Value>,
    claims: Vec<Value>,
    contents: Option<Vec<Value>>,
    events: Vec<Value>,
    fault: Option<Fault>,
    /// How often the PersistentVolumes were begun, and how often they were read to their end.
    begun: usize,
    read: usize,
}

type Shared = Arc<Mutex<World>>;

/// The server; it ends when this is dropped.
pub(crate) struct Kubernetes {
    world: Shared,
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Kubernetes {
    pub(crate) async fn start() -> Self {
        let world = Shared::default();
        let router = Router::new()
            .route("/api/v1/persistentvolumes", get(volumes))
            .route("/api/v1/persistentvolumeclaims", get(claims))
            .route("/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents", get(contents))
            .route("/api/v1/namespaces/storage/events", post(event))
            .with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { world, address, server }
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// A PersistentVolume of this driver.
    pub(crate) fn has_volume(&self, name: &str, handle: &str) {
        self.has_volume_of("rds.csi.srvlab.io", name, handle);
    }

    pub(crate) fn has_volume_of(&self, driver: &str, name: &str, handle: &str) {
        self.lock().volumes.push(json!({
            "metadata": {"name": name},
            "spec": {"csi": {"driver": driver, "volumeHandle": handle}, "persistentVolumeReclaimPolicy": "Retain"},
            "status": {"phase": "Released"},
        }));
    }

    pub(crate) fn loses_volume(&self, name: &str) {
        self.lock().volumes.retain(|volume| volume["metadata"]["name"] != name);
    }

    /// A PersistentVolumeClaim that has no volume yet.
    pub(crate) fn has_waiting_claim(&self, uid: &str) {
        self.lock()
            .claims
            .push(json!({"metadata": {"name": "c", "namespace": "shop", "uid": uid}, "spec": {}}));
    }

    /// From now on it knows what a VolumeSnapshotContent is, and has one.
    pub(crate) fn has_content(&self, name: &str, handle: &str) {
        self.lock().contents.get_or_insert_default().push(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
            "metadata": {"name": name},
            "spec": {
                "driver": "rds.csi.srvlab.io", "deletionPolicy": "Retain", "source": {"volumeHandle": "pvc-whatever"},
                "volumeSnapshotRef": {"name": "s", "namespace": "shop"},
            },
            "status": {"snapshotHandle": handle, "readyToUse": true},
        }));
    }

    pub(crate) fn fails(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Reasons and messages of the events so far.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.lock().events.iter().map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }

    /// Waits until the PersistentVolumes were asked for so many times more.
    pub(crate) async fn is_asked(&self, times: usize) {
        let until = self.lock().begun + times;
        self.until(|world| world.begun >= until).await;
    }

    /// Waits until they were read to their end so many times more.
    pub(crate) async fn is_read(&self, times: usize) {
        let until = self.lock().read + times;
        self.until(|world| world.read >= until).await;
    }

    async fn until(&self, condition: impl Fn(&World) -> bool) {
        let met = async {
            while !condition(&self.lock()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), met).await.expect("Kubernetes is asked");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

async fn volumes(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let fault = {
        let mut world = world.lock().unwrap();
        if query.contains_key("continue") {
            world.fault
        } else {
            world.begun += 1;
            None
        }
    };
    match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Some(Fault::Expired) => failure(StatusCode::GONE, "Expired"),
        None => {
            let mut world = world.lock().unwrap();
            let (page, last) = page("PersistentVolumeList", &world.volumes, &query);
            world.read += usize::from(last);
            Json(page).into_response()
        }
    }
}

async fn claims(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    Json(page("PersistentVolumeClaimList", &world.lock().unwrap().claims, &query).0)
}

async fn contents(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    match &world.lock().unwrap().contents {
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
        Some(contents) => Json(page("VolumeSnapshotContentList", contents, &query).0).into_response(),
    }
}

async fn event(State(world): State<Shared>, Json(event): Json<Value>) -> (StatusCode, Json<Value>) {
    assert_eq!(event["involvedObject"]["name"], "controller-0");
    world.lock().unwrap().events.push(event.clone());
    (StatusCode::CREATED, Json(event))
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "the test says so", "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}

/// The page that is asked for, and whether it is the last one.
fn page(kind: &str, items: &[Value], query: &HashMap<String, String>) -> (Value, bool) {
    let limit: usize = query["limit"].parse().unwrap();
    let from: usize =
        query.get("continue").map_or(0, |token| token.strip_prefix("from-").unwrap().parse().unwrap());
    let to = items.len().min(from + limit.min(PAGE));
    let last = to == items.len();
    let token = if last { String::new() } else { format!("from-{to}") };
    let metadata = json!({"resourceVersion": "7", "continue": token});
    let api = if kind.starts_with("VolumeSnapshot") { "snapshot.storage.k8s.io/v1" } else { "v1" };
    (json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": &items[from..to]}), last)
}
