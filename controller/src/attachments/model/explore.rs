//! Everything that can happen next, until there is nothing new; and what must be so wherever that leads.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::rc::Rc;

use super::actor::{Progress, run};
use super::world::{Answer, Call, Health, Running, Wish, World, Written, bit};
use crate::attachments::facts::Attached;

/// How much can happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub nodes: usize,
    /// Whether two nodes may hold the volume.
    pub shared: bool,
    /// Calls that run at the same time.
    pub calls: usize,
    /// Whether passes run beside them.
    pub passes: bool,
    pub attaches: u8,
    pub faults: u8,
    pub sabotage: Sabotage,
}

/// What was looked at.
#[derive(Debug)]
pub(super) struct Seen {
    #[allow(dead_code, reason = "it is printed")]
    pub states: usize,
    #[allow(dead_code, reason = "it is printed")]
    pub drained: usize,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A node that does not answer is taken for one that has nothing.
    SilenceIsGone,
    /// A fence takes a node off the list, and leaves its connection.
    FenceCutsNothing,
    /// The array forgets whom it lets in when it is told of somebody else, and the record is written without comparing.
    NobodyCompares,
    /// What must be asked of the API server is answered from a cache, and the array does not look either.
    CachesAreTrusted,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "what they carry is told by Debug")]
pub(super) enum Label {
    Begins(Call),
    IsKilled(Call),
    Goes(Call, Progress, Answer),
    IsHeard(Call),
    IsNotHeard(Call),
    CommandComesLate,
    CommandNeverComes,
    CachesStop,
    CachesCatchUp,
    RecordIsRemoved,
    IsWanted(usize),
    IsNotWanted(usize),
    AttachmentIsRemoved(usize),
    Stages(usize),
    Reconnects(usize),
    Unstages(usize),
    IsCutOff(usize),
    IsNotReady(usize),
    IsOutOfService(usize),
    LosesPower(usize),
    ComesBack(usize),
}

pub(super) type Next = Vec<(Label, World)>;

pub(super) struct Model {
    pub bounds: Bounds,
    /// How far each call gets with which answers.
    progress: RefCell<HashMap<(Call, Vec<Answer>), Progress>>,
}

/// Looks at everything within the bounds; the shortest story of how a rule is broken, if one is.
pub(super) fn explore(bounds: Bounds) -> Result<Seen, String> {
    let model = Model { bounds, progress: RefCell::default() };
    let first = Rc::new(World::new(bounds.faults, bounds.attaches).canonical());
    let mut known: HashMap<Rc<World>, Option<(usize, Label)>> = [(Rc::clone(&first), None)].into();
    let (mut queue, mut drained, mut position) = (vec![first], HashSet::new(), 0);
    while let Some(world) = queue.get(position).cloned() {
        let story = |wrong: &str| tell(&known, &queue, &world, wrong);
        model.is_safe(&world).map_err(|wrong| story(&wrong))?;
        if world.calls.is_empty() && world.late_command.is_none() {
            // How much more may go wrong does not matter for whether all can be ended.
            let bare = World { faults: 0, attaches: 0, late_cache: None, ..(*world).clone() }.canonical();
            if drained.insert(bare.clone()) {
                for silent in [false, true] {
                    model.drain(bare.clone(), silent).map_err(|wrong| story(&wrong))?;
                }
            }
        }
        for (label, next) in model.next(&world) {
            let next = Rc::new(next.canonical());
            if !known.contains_key(&next) {
                known.insert(Rc::clone(&next), Some((position, label)));
                queue.push(next);
            }
        }
        position += 1;
    }
    Ok(Seen { states: queue.len(), drained: drained.len() })
}

fn tell(
    known: &HashMap<Rc<World>, Option<(usize, Label)>>,
    queue: &[Rc<World>],
    last: &Rc<World>,
    wrong: &str,
) -> String {
    let (mut steps, mut world) = (Vec::new(), last);
    while let Some(Some((before, label))) = known.get(world) {
        steps.push(label);
        world = &queue[*before];
    }
    let mut story = format!("{wrong}, after {} steps:\n", steps.len());
    for step in steps.iter().rev() {
        let _ = writeln!(story, "  {step:?}");
    }
    let _ = write!(story, "{last:#?}");
    story
}

impl Model {
    /// Never more writers than may be: a writer is whoever has a connection. And never more whom the array or the record names.
    fn is_safe(&self, world: &World) -> Result<(), String> {
        let most = if self.bounds.shared { 2 } else { 1 };
        let writers = world.machines.iter().filter(|machine| machine.connected).count();
        let (admitted, recorded) = (world.admitted.count_ones(), world.record.holders.count_ones());
        if writers > most {
            return Err(format!("{writers} nodes can write"));
        }
        for (who, count) in [("array lets in", admitted), ("record names", recorded)] {
            if count > u32::try_from(most).unwrap_or(0) {
                return Err(format!("the {who} {count} nodes"));
            }
        }
        Ok(())
    }

    /// Whether all can be brought to an end from here, with every node well and its pods gone, or with every node down for
    /// good and only the array to help; and whether the volume can be used again then.
    fn drain(&self, mut world: World, silent: bool) -> Result<(), String> {
        for machine in &mut world.machines {
            machine.reachable = !silent;
            machine.health = if silent { Health::OutOfService } else { Health::Ready };
            if !silent {
                (machine.uses, machine.connected, machine.reported) = (None, false, false);
            }
            if let Wish::Wanted(attached) = machine.wish {
                machine.wish = Wish::Unwanted(attached);
            }
        }
        for _ in 0..2 {
            self.complete(&mut world, Call::Pass(true));
            for node in 0..self.bounds.nodes {
                let call = Call::Unpublish(u8::try_from(node).unwrap_or(0));
                let unwanted = matches!(world.machines[node].wish, Wish::Unwanted(_));
                if unwanted && self.complete(&mut world, call) == Progress::Unpublished {
                    world.machines[node].wish = Wish::None;
                }
            }
        }
        let left = world.machines.iter().any(|machine| machine.wish != Wish::None);
        if left || world.admitted != 0 || world.record != Written::default() {
            return Err(format!(
                "it does not come to an end (silent nodes: {silent}), but is left as {world:#?}"
            ));
        }
        (world.machines[0].reachable, world.machines[0].health) = (true, Health::Ready);
        world.machines[0].wish = Wish::Wanted(Attached::No);
        match self.complete(&mut world, Call::Publish(0)) {
            Progress::Published(_) if world.admitted == bit(0) => Ok(()),
            other => Err(format!("it cannot be attached again: {other:?} in {world:#?}")),
        }
    }

    /// Runs a call to its end with nothing going wrong.
    fn complete(&self, world: &mut World, call: Call) -> Progress {
        world.calls = vec![Running { call, answers: Vec::new(), forsaken: false }];
        loop {
            let progress = self.progress(&world.calls[0]);
            let Progress::Asks(question) = progress else {
                world.calls.clear();
                return progress;
            };
            let (answer, mut next) = self.answered(world, question).swap_remove(0);
            next.calls[0].answers.push(answer);
            *world = next;
        }
    }

    pub(super) fn progress(&self, running: &Running) -> Progress {
        let key = (running.call, running.answers.clone());
        if let Some(progress) = self.progress.borrow().get(&key) {
            return *progress;
        }
        let progress = run(running.call, &running.answers, self.bounds.shared);
        self.progress.borrow_mut().insert(key, progress);
        progress
    }
}
