//! Two programs set who may connect to one volume at once: the line of one waits before each of its changes, while the line of
//! the other runs from its beginning to its end.

use std::pin::pin;

use futures_util::future::join_all;
use rds_csi_api::{HostNqn, Nqn, VolumeId};
use rds_csi_controller::array::{Array, Error, Export, Volume, Wanted};
use rds_csi_integration::simulator::{Effect, Fault, Simulator};

use super::{Connected, PATIENT};
use crate::world;

/// Two programs, and their array.
struct Two {
    simulator: Simulator,
    one: Connected,
    other: Connected,
    _site: world::Site,
}

impl Two {
    async fn start() -> Self {
        let (simulator, site) = world::simulator(|_| {}).await;
        let (one, other) =
            (Connected::now_to(&site, 1, PATIENT).await, Connected::now_to(&site, 1, PATIENT).await);
        Self { simulator, one, other, _site: site }
    }

    /// Runs the second within the first, which waits before that change. False if it makes fewer.
    async fn meet(&self, id: &VolumeId, first: Act, change: u32, second: Act) -> bool {
        let fault = Fault::new(Effect::PauseBefore { change }).times(1);
        self.simulator.inject(fault.containing(id.as_str()));
        let mut first = pin!(first.on(&self.one.array, id));
        tokio::select! {
            _ = &mut first => return false,
            () = self.simulator.paused() => {}
        }
        let _ = second.on(&self.other.array, id).await;
        self.assert_not_open(id);
        self.simulator.clear_faults();
        let _ = first.await;
        true
    }

    /// Whoever may connect was named by somebody.
    #[track_caller]
    fn assert_not_open(&self, id: &VolumeId) {
        let state = self.simulator.state().unwrap();
        let disk = state.disks.iter().find(|disk| disk.slot == id.slot()).unwrap();
        assert!(!disk.nvme_tcp_export || !disk.nvme_tcp_server_allow_host_name.is_empty(), "{disk:?}");
    }

    async fn end(self) {
        self.one.close().await;
        self.other.close().await;
        self.simulator.stop().await.unwrap();
    }
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
}

/// Whatever changes who is let in, and never to every host.
#[derive(Debug, Clone, Copy)]
enum Act {
    AdmitBoth,
    DismissOne,
    DismissBoth,
    FenceOne,
    FenceBoth,
}

const ACTS: [Act; 5] = [Act::AdmitBoth, Act::DismissOne, Act::DismissBoth, Act::FenceOne, Act::FenceBoth];

impl Act {
    async fn on(self, array: &impl Array, id: &VolumeId) -> Result<Volume, Error> {
        let (one, both) = (hosts(&["w1"]), hosts(&["w1", "w2"]));
        match self {
            Self::AdmitBoth => array.admit(id, &both).await,
            Self::DismissOne => array.dismiss(id, &both, &one).await,
            Self::DismissBoth => array.dismiss(id, &both, &Export::Off).await,
            Self::FenceOne => array.fence(id, &Nqn::of_volume(id), &both, &one).await,
            Self::FenceBoth => array.fence(id, &Nqn::of_volume(id), &both, &Export::Off).await,
        }
    }
}

#[tokio::test]
async fn however_two_lines_meet_no_export_is_opened_to_every_host() {
    join_all(ACTS.map(async |first| {
        let two = Two::start().await;
        let (mut volumes, mut met) = (0, 0);
        for second in ACTS {
            for export in [Export::Off, hosts(&["w1", "w2"])] {
                for change in 1.. {
                    assert!(change < 10, "{first:?} never ends");
                    volumes += 1;
                    // Its id tells what was tried, if it goes wrong.
                    let id = format!("{first:?}-{second:?}-{change}-{volumes}");
                    let wanted = Wanted { export: export.clone(), ..super::wanted(&id) };
                    two.one.array.create(&wanted).await.unwrap();
                    if !two.meet(&wanted.id, first, change, second).await {
                        break;
                    }
                    two.assert_not_open(&wanted.id);
                    met += 1;
                }
            }
        }
        assert!(met >= ACTS.len(), "{first:?} changes something");
        two.end().await;
    }))
    .await;
}
