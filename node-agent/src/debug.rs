//! What the agent knows, told to people: JSON over plain HTTP, and all of it on one page, where `--admin-listen` says: on loopback.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rds_csi_api::serve::call::{Calls, RunningCall};
use rds_csi_api::status::chain;
use serde_json::{Value, json};

use crate::breaker::Breakers;
use crate::events::Events;
use crate::host::{self, Host, Mount};
use crate::volumes::record;
use crate::volumes::{self, Volumes};
use crate::{inspect, reads};

mod page;

/// A person waits no longer than the controller does.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
    #[error(transparent)]
    Reads(#[from] reads::Error),
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
}

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The volumes, as the internal API tells of them.
    Volumes,
    /// The kernel's NVMe controllers, of whomever.
    Nvme,
    /// Whatever is mounted of our volumes, or where they belong.
    Mounts,
    /// The calls that run now.
    Operations,
    /// What happened to the volumes lately.
    Events,
    /// The volumes that are not staged for the time being.
    Breakers,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Volumes, Self::Nvme, Self::Mounts, Self::Operations, Self::Breakers, Self::Events];

    /// Where it is served.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Volumes => "/debug/volumes",
            Self::Nvme => "/debug/nvme",
            Self::Mounts => "/debug/mounts",
            Self::Operations => "/debug/operations",
            Self::Events => "/debug/events",
            Self::Breakers => "/debug/breakers",
        }
    }
}

/// What is read.
#[derive(Debug)]
struct Desk<H> {
    volumes: Arc<Volumes<H>>,
    calls: Calls,
    events: Events,
    breakers: Breakers,
}

/// `/debug`, and each section under its own path.
pub fn router<H: Host>(volumes: Arc<Volumes<H>>, calls: Calls, events: Events, breakers: Breakers) -> Router {
    let desk = Arc::new(Desk { volumes, calls, events, breakers });
    let routes = Section::ALL.into_iter().fold(Router::new(), |routes, section| {
        let answer = move |State(desk): State<Arc<Desk<H>>>| async move { told(&desk, section).await };
        routes.route(section.path(), get(answer))
    });
    routes.route("/debug", get(page::<H>)).with_state(desk)
}

async fn told<H: Host>(desk: &Arc<Desk<H>>, section: Section) -> Response {
    match rows(desk, section).await {
        Ok(rows) => Json(rows).into_response(),
        Err(Error::Reads(error @ (reads::Error::Late { .. } | reads::Error::Full { .. }))) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))).into_response(),
    }
}

/// What cannot be read hides nothing else.
async fn page<H: Host>(State(desk): State<Arc<Desk<H>>>) -> Html<String> {
    let mut sections = Vec::new();
    for section in Section::ALL {
        sections.push((section, rows(&desk, section).await.map_err(|error| chain(&error))));
    }
    Html(page::html(&sections))
}

async fn rows<H: Host>(desk: &Arc<Desk<H>>, section: Section) -> Result<Vec<Value>, Error> {
    let (desk, reads) = (Arc::clone(desk), desk.volumes.reads.clone());
    reads.run("everything on this node", DEADLINE, move || desk.read(section)).await
}

impl<H: Host> Desk<H> {
    fn read(&self, section: Section) -> Result<Vec<Value>, Error> {
        let Self { volumes, calls, events, breakers } = self;
        match section {
            Section::Volumes => {
                let all = inspect::all(volumes)?;
                Ok(all.into_iter().map(|volume| json!(volume)).collect())
            }
            Section::Nvme => {
                let controllers = volumes.host.controllers()?;
                Ok(controllers.into_iter().map(|controller| json!(controller)).collect())
            }
            Section::Mounts => mounts(volumes),
            Section::Operations => Ok(calls.running().into_iter().map(operation).collect()),
            Section::Breakers => Ok(breakers.open().into_iter().map(|open| json!(open)).collect()),
            Section::Events => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let told = |event: crate::events::Event| {
                    let ago = now.saturating_sub(Duration::from_millis(event.unix_milliseconds)).as_secs();
                    let mut told = json!(event);
                    told["secondsAgo"] = ago.into();
                    told
                };
                Ok(events.kept().into_iter().rev().map(told).collect())
            }
        }
    }
}

fn operation(call: RunningCall) -> Value {
    let RunningCall { rpc, volume, begun } = call;
    json!({ "call": rpc.path().1, "volume": volume, "seconds": begun.elapsed().as_secs() })
}

fn mounts<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Value>, Error> {
    let subsystems = volumes.host.subsystems(&|nqn| volumes.prefix.covers(nqn))?;
    let records = volumes.records.list()?.records;
    let of_device = |mount: &Mount| {
        subsystems.iter().find_map(|(nqn, seen)| {
            let device = seen.as_ref().ok()?.attachment.device()?;
            (device.number == mount.device).then(|| volumes.prefix.volume(nqn))?
        })
    };
    let of_path = |mount: &Mount| {
        records.iter().find(|record| record.names(&mount.at)).map(|record| record.volume.clone())
    };
    let told = |mount: &Mount| {
        let volume = of_path(mount).or_else(|| of_device(mount))?;
        let Mount { device, root, at, options, filesystem, source, super_options } = mount;
        Some(json!({
            "volume": volume, "at": at, "device": device.to_string(), "root": root, "filesystem": filesystem,
            "source": source, "options": options, "superOptions": super_options,
        }))
    };
    Ok(volumes.host.mounts()?.iter().filter_map(told).collect())
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::events::Reason;
    use crate::host::fake::{Act, FakeHost, Holds};
    use crate::world::{World, world};
    use crate::{publish, stage};

    fn desk(world: &World) -> Arc<Desk<FakeHost>> {
        let volumes = Arc::new(world.volumes_again());
        let calls = Calls::new(&mut Registry::default());
        let events = Events::new(10);
        Arc::new(Desk { volumes, calls, breakers: Breakers::new(events.clone()), events })
    }

    fn published() -> World {
        let world = world(Holds::Nothing);
        stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
        let usage = publish::Usage::Filesystem(publish::Writing::Allowed);
        publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
        world
    }

    #[tokio::test]
    async fn every_section_tells_what_there_is() {
        let world = published();
        let desk = desk(&world);
        for _ in 0..3 {
            desk.breakers.guard(&world.volume, || Err(stage::Error::Endless)).unwrap_err();
        }
        let breakers = rows(&desk, Section::Breakers).await.unwrap();
        assert_eq!((&breakers[0]["volume"], &breakers[0]["failures"]), (&json!("pvc-a"), &json!(3)));
        assert!(breakers[0]["until"].as_str().unwrap().ends_with("GMT"), "{breakers:?}");
        desk.events.record(&world.volume, Reason::ConnectionLost, "gone");
        world.host.unplug();
        let volumes = rows(&desk, Section::Volumes).await.unwrap();
        assert_eq!(
            (&volumes[0]["volume"], &volumes[0]["connection"]),
            (&json!("pvc-a"), &json!("connecting"))
        );
        assert!(volumes[0]["condition"].as_str().unwrap().contains("does not answer"), "{volumes:?}");
        let nvme = rows(&desk, Section::Nvme).await.unwrap();
        assert_eq!((&nvme[0]["controller"], &nvme[0]["state"]), (&json!("nvme1"), &json!("connecting")));
        let mounts = rows(&desk, Section::Mounts).await.unwrap();
        assert_eq!(mounts.len(), 2, "staged and published: {mounts:?}");
        assert!(mounts.iter().all(|mount| mount["volume"] == "pvc-a" && mount["device"] == "259:1"));
        let events = rows(&desk, Section::Events).await.unwrap();
        assert_eq!((&events[0]["reason"], &events[0]["sequence"]), (&json!("ConnectionLost"), &json!(2)));
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_told_with_its_volume() {
        use rds_csi_api::Rpc;
        use rds_csi_api::serve::call::Call;
        let world = world(Holds::Nothing);
        let desk = desk(&world);
        assert!(rows(&desk, Section::Operations).await.unwrap().is_empty());
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let hanging = move || {
            let _ = ended.recv();
            Ok::<_, volumes::Error>(())
        };
        let call = Call::on(Rpc::NodeUnstageVolume, &world.volume);
        desk.calls.run_blocking(call, Duration::ZERO, hanging).await.unwrap_err();
        let running = rows(&desk, Section::Operations).await.unwrap();
        assert_eq!(running, [json!({ "call": "NodeUnstageVolume", "volume": "pvc-a", "seconds": 0 })]);
        end.send(()).unwrap();
        desk.calls.drain().await;
    }

    #[tokio::test]
    async fn the_page_has_every_section_also_if_one_cannot_be_read() {
        let world = published();
        let desk = desk(&world);
        desk.events.record(&world.volume, Reason::MountFailure, "<b>&");
        world.host.fail_once(Act::Holders, rustix::io::Errno::ACCESS);
        let Html(html) = page(State(desk)).await;
        for section in Section::ALL {
            assert!(html.contains(section.path()), "{section:?} is missing: {html}");
        }
        assert!(html.contains("cannot be read") && html.contains("/var/lib/kubelet/pods/p/target"), "{html}");
        assert!(html.contains("&lt;b&gt;&amp;") && !html.contains("<b>&"), "{html}");
    }
}
