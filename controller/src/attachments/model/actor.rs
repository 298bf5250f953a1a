//! The verbs, held at each question that they ask.
//!
//! An [`Actor`] stands for every seam. It gives the answers that it has, in that order, and holds whoever asks for more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::num::NonZeroU16;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rds_csi_api::{Bytes, ManagedPrefix, NodeName, Nqn, Portal, ReconnectPolicy, SnapshotId, VolumeId};

use super::words::{NAMES, NOW, VOLUME, as_record, as_volume, as_written, epoch, index, mode, nodes_of};
use super::world::{Answer, Call, Command, Health, Nodes, Wish, Written, bit};
use crate::array::{
    self, Array, Capacity, Export, IfOpen, Inventory, Snapshot, Volume, Wanted, WantedSnapshot,
};
use crate::attachments::facts::{self, Authority, Facts, Freshness, Node, Pod, Reported, User};
use crate::attachments::herald::{Event, Herald, Tally};
use crate::attachments::store::{self, Revision, Store, Stored};
use crate::attachments::{Claim, Fence, Parties, Record, Rights, Second, Shape, Testimony, reconcile};
use crate::backends::Backends;
use crate::backends::fake::backend;
use crate::node_agents::{Link, Witness};
use crate::publish::{self, publish};
use crate::unpublish::{From, unpublish};

const LATER: Duration = Duration::from_hours(1);

static PREFIX: LazyLock<ManagedPrefix> = LazyLock::new(|| "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap());
static TALLY: LazyLock<Tally> = LazyLock::new(Tally::default);

/// What a verb asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Record,
    Facts { of: Nodes, freshness: Freshness },
    Replace { loaded: u8, by: Written },
    Testimony(usize),
    Link(usize),
    Volume,
    Command(Command),
}

/// How far a call gets with the answers that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Asks(Question),
    /// The node is attached, to be connected under this name.
    Published(u8),
    Unpublished,
    /// A pass is over, or a call failed.
    Ended,
}

/// Runs a call with these answers.
pub(super) fn run(call: Call, answers: &[Answer], shared: bool) -> Progress {
    let state = State { answers: answers.to_vec(), given: 0, asked: None, shared };
    let actor = Actor(Arc::new(Mutex::new(state)));
    let parties = Parties { array: &actor, fence: Fence::Acl, ledger: &actor, nodes: &actor };
    let outcome = match call {
        Call::Publish(node) => {
            let claim = Claim {
                node: NAMES[usize::from(node)].clone(),
                shape: Shape::Block,
                mode: mode(shared),
                rights: Rights::Write,
                second: Second::default(),
            };
            let portal = Portal { address: [10, 0, 0, 1].into(), port: 4420 };
            let request = publish::Request { id: VOLUME.clone(), claim, portal, reconnect: None };
            poll(publish(&parties, NonZeroU16::MAX, request, NOW))
                .map(|done| done.map_or(Progress::Ended, |context| Progress::Published(epoch(&context.nqn))))
        }
        Call::Unpublish(node) => {
            let from = From::Node(NAMES[usize::from(node)].clone());
            poll(unpublish(&parties, VOLUME.clone(), from, NOW))
                .map(|done| done.map_or(Progress::Ended, |()| Progress::Unpublished))
        }
        Call::Pass(late) => {
            let now = if late { NOW + LATER } else { NOW };
            let backends = Backends::only(backend(None, actor.clone()));
            poll(reconcile::pass(&backends, &PREFIX, &actor, &actor, now)).map(|_| Progress::Ended)
        }
    };
    let asked = actor.state().asked;
    match outcome {
        Poll::Ready(progress) => progress,
        Poll::Pending => Progress::Asks(asked.expect("who waits has asked")),
    }
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Every seam at once.
#[derive(Debug, Clone)]
struct Actor(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    answers: Vec<Answer>,
    given: usize,
    asked: Option<Question>,
    shared: bool,
}

impl Actor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, question: Question) -> Answer {
        poll_fn(|_| {
            let mut state = self.state();
            let next = state.answers.get(state.given).copied();
            if let Some(answer) = next {
                state.given += 1;
                return Poll::Ready(answer);
            }
            // Of several that ask at once the first is answered first.
            state.asked.get_or_insert(question);
            Poll::Pending
        })
        .await
    }

    fn shared(&self) -> bool {
        self.state().shared
    }

    async fn command(&self, command: Command) -> Result<Volume, array::Error> {
        as_volume(self.ask(Question::Command(command)).await)
    }
}

impl Store for Actor {
    async fn load(&self, _: &VolumeId) -> Result<Stored, store::Error> {
        match self.ask(Question::Record).await {
            Answer::Record(written, revision) => {
                let record = as_record(written, self.shared());
                Ok(Stored { record, revision: Revision::new(revision.to_string()) })
            }
            other => unreachable!("{other:?} is no record"),
        }
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, Record>, store::Error> {
        let record = self.load(&VOLUME).await?.record;
        Ok(Some(record)
            .filter(|record| !record.is_empty())
            .map(|record| (VOLUME.clone(), record))
            .into_iter()
            .collect())
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        None
    }

    async fn replace(
        &self,
        _: &VolumeId,
        loaded: Revision,
        record: Record,
    ) -> Result<Revision, store::Error> {
        let loaded = loaded.as_str().parse().unwrap();
        match self.ask(Question::Replace { loaded, by: as_written(&record) }).await {
            Answer::Replaced(revision) => Ok(Revision::new(revision.to_string())),
            Answer::Changed => Err(store::Error::Changed(VOLUME.clone())),
            _ => Err(store::Error::Unreachable { why: "the reply was lost".into() }),
        }
    }
}

impl Authority for Actor {
    async fn facts(
        &self,
        _: &VolumeId,
        of: &BTreeSet<NodeName>,
        freshness: Freshness,
    ) -> Result<Facts, facts::Error> {
        let of = of.iter().map(|node| bit(index(node))).fold(0, |all, one| all | one);
        let Answer::Facts(known) = self.ask(Question::Facts { of, freshness }).await else {
            unreachable!("these are no facts")
        };
        let mut facts = Facts::default();
        for (name, (wish, health, reported)) in NAMES.iter().zip(known) {
            let reported = if reported { Reported::InUse } else { Reported::NotInUse };
            let node = match health {
                Health::Ready => Node::Ready(reported),
                Health::NotReady => Node::NotReady(reported),
                Health::OutOfService => Node::OutOfService,
            };
            facts.nodes.insert(name.clone(), node);
            if let Wish::Wanted(attached) | Wish::Unwanted(attached) = wish {
                facts.wanted.insert(name.clone(), attached);
                let labels = [("kubevirt.io/created-by", "vm"), ("kubevirt.io/migrationJobUID", "job")];
                let labels = labels.map(|(key, value)| (key.into(), value.into())).into();
                facts.users.push(User {
                    pod: Pod { name: "vms/vm".into(), node: name.clone(), labels },
                    owner: None,
                });
            }
        }
        Ok(facts)
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        NAMES.iter().cloned().collect()
    }
}

impl Herald for Actor {
    fn tally(&self) -> &Tally {
        &TALLY
    }

    fn post(&self, _: &VolumeId, _: &Event) {}
}

impl Witness for Actor {
    async fn testify(&self, node: &NodeName, _: &VolumeId, _: &Nqn) -> Testimony {
        match self.ask(Question::Testimony(index(node))).await {
            Answer::Gone => Testimony::Gone,
            Answer::InUse => Testimony::InUse("in use".into()),
            _ => Testimony::Silent("no answer".into()),
        }
    }

    async fn link(&self, node: &NodeName, _: &VolumeId, _: &Nqn) -> Link {
        match self.ask(Question::Link(index(node))).await {
            Answer::InUse => Link::Live,
            Answer::Waits => Link::Broken,
            Answer::Gone => Link::Unused,
            _ => Link::Unknown("no answer".into()),
        }
    }

    fn named(&self) -> Vec<NodeName> {
        Vec::new()
    }

    fn knows(&self, _: &NodeName) -> bool {
        true
    }
}

impl Array for Actor {
    async fn volume(&self, _: &VolumeId) -> Result<Volume, array::Error> {
        as_volume(self.ask(Question::Volume).await)
    }

    async fn admit(&self, _: &VolumeId, export: &Export) -> Result<Volume, array::Error> {
        self.command(Command::Admit(nodes_of(export))).await
    }

    async fn dismiss(&self, _: &VolumeId, before: &Export, after: &Export) -> Result<Volume, array::Error> {
        self.command(Command::Dismiss { before: nodes_of(before), after: nodes_of(after) }).await
    }

    async fn fence(
        &self,
        _: &VolumeId,
        cut: &Nqn,
        before: &Export,
        after: &Export,
    ) -> Result<Volume, array::Error> {
        let (cut, before, after) = (epoch(cut), nodes_of(before), nodes_of(after));
        self.command(Command::Fence { cut, before, after }).await
    }

    async fn inventory(&self) -> Result<Inventory, array::Error> {
        Ok(Inventory { volumes: vec![self.volume(&VOLUME).await?], ..Inventory::default() })
    }

    async fn create(&self, _: &Wanted) -> Result<Volume, array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn delete(&self, _: &VolumeId, _: IfOpen) -> Result<(), array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn expand(&self, _: &VolumeId, _: Bytes) -> Result<Volume, array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn modify(&self, _: &VolumeId, _: &ReconnectPolicy) -> Result<Volume, array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn take_snapshot(&self, _: &WantedSnapshot) -> Result<Snapshot, array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn snapshot(&self, _: &SnapshotId) -> Result<Snapshot, array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn delete_snapshot(&self, _: &SnapshotId) -> Result<(), array::Error> {
        unreachable!("{NOT_HERE}")
    }

    async fn capacity(&self) -> Result<Capacity, array::Error> {
        unreachable!("{NOT_HERE}")
    }
}

const NOT_HERE: &str = "it has nothing to do with attachments";
