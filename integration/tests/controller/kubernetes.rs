//! As much of an API server as the controller asks where a list must fail in its middle: lists, page by page, a watch over
//! PersistentVolumes, and a place for events. It speaks HTTP, and has what a test puts there. Everything else is tested
//! against a real one, in `tests/kubernetes`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, State};
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
    /// What became of the PersistentVolumes, for those that watch them.
    changes: Vec<Value>,
    /// How often who claims what was asked, and how often it was read to its end.
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
            .route("/api/v1/persistentvolumes/{name}", get(volume).patch(patch_volume))
            .route("/api/v1/nodes", get(nodes))
            .route("/api/v1/pods", get(nothing))
            .route("/apis/storage.k8s.io/v1/volumeattachments", get(nothing))
            .route("/apis/coordination.k8s.io/v1/namespaces/storage/leases/{name}", get(no_lease).put(lease))
            .route("/apis/coordination.k8s.io/v1/namespaces/storage/leases", post(lease))
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
        self.lock().change("ADDED", json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {"csi": {"driver": driver, "volumeHandle": handle}, "persistentVolumeReclaimPolicy": "Retain"},
            "status": {"phase": "Released"},
        }));
    }

    pub(crate) fn loses_volume(&self, name: &str) {
        let mut world = self.lock();
        let lost = world.volumes.iter().find(|volume| volume["metadata"]["name"] == name).cloned();
        world.change("DELETED", lost.unwrap());
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

    /// Waits until who claims what was asked so many times more.
    pub(crate) async fn is_asked(&self, times: usize) {
        let until = self.lock().begun + times;
        self.until(|world| world.begun >= until).await;
    }

    /// Waits until the answer was read to its end so many times more.
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

impl World {
    /// A PersistentVolume comes, goes, or is another.
    fn change(&mut self, kind: &str, mut volume: Value) {
        let version = self.changes.len() + 1;
        volume["metadata"]["resourceVersion"] = json!(version.to_string());
        let at = self.volumes.iter().position(|is| is["metadata"]["name"] == volume["metadata"]["name"]);
        match (at, kind) {
            (Some(at), "DELETED") => drop(self.volumes.remove(at)),
            (Some(at), _) => self.volumes[at] = volume.clone(),
            (None, _) => self.volumes.push(volume.clone()),
        }
        self.changes.push(json!({ "type": kind, "object": volume }));
    }
}

async fn volumes(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    if query.contains_key("watch") {
        return watch(world, query["resourceVersion"].parse().unwrap()).into_response();
    }
    let fault = world.lock().unwrap().fault.filter(|_| query.contains_key("continue"));
    match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Error) => failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Some(Fault::Expired) => failure(StatusCode::GONE, "Expired"),
        None => {
            let world = world.lock().unwrap();
            Json(page("PersistentVolumeList", &world.volumes, world.changes.len(), &query)).into_response()
        }
    }
}

/// A line for every change after the first so many.
fn watch(world: Shared, seen: usize) -> Body {
    let lines = futures_util::stream::unfold(seen, move |seen| {
        let world = Arc::clone(&world);
        async move {
            loop {
                let line = world.lock().unwrap().changes.get(seen).map(|change| format!("{change}\n"));
                match line {
                    Some(line) => return Some((Ok::<_, Infallible>(line), seen + 1)),
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        }
    });
    Body::from_stream(lines)
}

async fn volume(State(world): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    let world = world.lock().unwrap();
    match world.volumes.iter().find(|volume| volume["metadata"]["name"] == name) {
        Some(volume) => Json(volume.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

/// A merge patch of annotations, which must be of the version that there is.
async fn patch_volume(
    State(world): State<Shared>,
    UrlPath(name): UrlPath<String>,
    Json(patch): Json<Value>,
) -> Response {
    let mut world = world.lock().unwrap();
    let found = world.volumes.iter().find(|volume| volume["metadata"]["name"] == name).cloned();
    let Some(mut volume) = found else { return failure(StatusCode::NOT_FOUND, "NotFound") };
    if patch["metadata"]["resourceVersion"] != volume["metadata"]["resourceVersion"] {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
        volume["metadata"]["annotations"][key] = value.clone();
    }
    let annotations = volume["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.retain(|_, value| !value.is_null());
    world.change("MODIFIED", volume);
    Json(world.volumes.iter().find(|volume| volume["metadata"]["name"] == name).cloned()).into_response()
}

/// Nodes w1 and w2, which are ready and never change.
async fn nodes(Query(query): Query<HashMap<String, String>>) -> Response {
    let node = |name: &str| {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "resourceVersion": "1"}, "status": status})
    };
    unchanging("NodeList", &[node("w1"), node("w2")], &query)
}

async fn nothing(Query(query): Query<HashMap<String, String>>) -> Response {
    unchanging("List", &[], &query)
}

fn unchanging(kind: &str, items: &[Value], query: &HashMap<String, String>) -> Response {
    if query.contains_key("watch") {
        let never = futures_util::stream::pending::<Result<String, Infallible>>();
        return Body::from_stream(never).into_response();
    }
    Json(page(kind, items, 1, query)).into_response()
}

async fn no_lease() -> Response {
    failure(StatusCode::NOT_FOUND, "NotFound")
}

/// Whoever asks gets it.
async fn lease(Json(lease): Json<Value>) -> Json<Value> {
    Json(lease)
}

async fn claims(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let mut world = world.lock().unwrap();
    world.begun += usize::from(!query.contains_key("continue"));
    Json(page("PersistentVolumeClaimList", &world.claims, 7, &query))
}

/// What is asked for last.
async fn contents(State(world): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Response {
    let mut world = world.lock().unwrap();
    world.read += usize::from(!query.contains_key("continue"));
    match &world.contents {
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
        Some(contents) => Json(page("VolumeSnapshotContentList", contents, 7, &query)).into_response(),
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

/// The page that is asked for.
fn page(kind: &str, items: &[Value], version: usize, query: &HashMap<String, String>) -> Value {
    let limit: usize = query["limit"].parse().unwrap();
    let from: usize =
        query.get("continue").map_or(0, |token| token.strip_prefix("from-").unwrap().parse().unwrap());
    let to = items.len().min(from + limit.min(PAGE));
    let token = if to == items.len() { String::new() } else { format!("from-{to}") };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
    let api = if kind.starts_with("VolumeSnapshot") { "snapshot.storage.k8s.io/v1" } else { "v1" };
    json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": &items[from..to]})
}
