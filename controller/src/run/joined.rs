//! A controller that has Kubernetes: what it hears all the time, what it tells, and what it does only while it leads.

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use rds_csi_api::serve::call::Calls;
use rds_csi_api::serve::tasks::Tasks;
use tokio::sync::Mutex;

use super::led::Led;
use crate::array::routeros::RouterOs;
use crate::cluster::agents::Directory;
use crate::cluster::events::{Herald, Mailbox, Poster};
use crate::cluster::leader::Leadership;
use crate::cluster::ledger::Ledger;
use crate::cluster::{self, Error};
use crate::config::{Kubernetes, Orphans, Pod};
use crate::csi::Driver;
use crate::node_agents::NodeAgents;
use crate::orphans::{Policy, Search};

/// What a driver works with that has Kubernetes.
pub(super) type JoinedDriver = Driver<RouterOs, Ledger, Directory>;

/// The parts of the program that speak with Kubernetes.
pub(super) struct Joined {
    kubernetes: Kubernetes,
    client: Client,
    poster: Poster,
    mailbox: Mailbox,
    pub(super) ledger: Ledger,
    pub(super) agents: Directory,
}

impl Joined {
    /// Nothing is asked yet: the API server may be slow or away.
    pub(super) async fn new(kubernetes: Kubernetes, named: NodeAgents) -> Result<Self, Error> {
        let client = cluster::connect(&kubernetes.access).await?;
        let (mailbox, poster) = Poster::new(client.clone());
        let ledger = Ledger::new(client.clone(), mailbox.clone());
        let agents = Directory::new(named, kubernetes.agents.clone(), ledger.nodes.clone());
        Ok(Self { kubernetes, client, poster, mailbox, ledger, agents })
    }

    /// Begins to listen, to tell and to lead.
    pub(super) fn spawn(
        self,
        orphans: Orphans,
        driver: &Arc<JoinedDriver>,
        calls: &Calls,
        registry: &mut Registry,
        tasks: &mut Tasks,
    ) {
        let Self { kubernetes, client, poster, mailbox, ledger, agents } = self;
        let heard = ledger.follow(tasks.shutdown());
        spawn(tasks, "the watch over Kubernetes' objects", heard);
        let found = agents.follow(client.clone(), tasks.shutdown());
        spawn(tasks, "the watch over the agents' pods", found);
        let posted = poster.run(tasks.shutdown());
        spawn(tasks, "the posting of events", posted);

        let leadership = Leadership::new(&kubernetes, client.clone(), registry);
        let herald = kubernetes.pod.map(|Pod { namespace, name }| Herald::new(mailbox, &namespace, &name));
        let search = match orphans {
            Orphans::Off(why) => {
                tracing::info!(why, "orphans are not looked for");
                None
            }
            Orphans::Reported { interval, removal } => {
                let policy = Policy { removal };
                let search = Search::new(Arc::clone(driver), client, calls.clone(), herald, policy, registry);
                tracing::info!(?interval, ?removal, "orphans are looked for");
                Some((Arc::new(Mutex::new(search)), interval))
            }
        };
        let led = Led {
            driver: Arc::clone(driver),
            reconcile_interval: kubernetes.reconcile_interval,
            search,
            shutdown: tasks.shutdown(),
        };
        let led = move || led.clone().run();
        let leading = leadership.run(led, tasks.shutdown());
        spawn(tasks, "what only one replica does", leading);
    }
}

fn spawn(tasks: &mut Tasks, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(name, async move {
        task.await;
        Ok(())
    });
}
