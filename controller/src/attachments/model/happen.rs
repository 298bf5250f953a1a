//! What can happen next, in Kubernetes, on the nodes, in the controllers and on the array.

use super::actor::{Progress, Question};
use super::explore::{Label, Model, Next, Sabotage};
use super::world::{Answer, Call, Command, Health, Machine, Running, Wish, World, Written, bit};
use crate::attachments::facts::{Attached, Freshness};

impl Model {
    pub(super) fn next(&self, world: &World) -> Next {
        let mut next = Vec::new();
        for node in 0..self.bounds.nodes {
            kubernetes(world, node, self.bounds.shared, &mut next);
            machine(world, node, self.bounds.shared, &mut next);
        }
        self.calls(world, &mut next);
        for index in 0..world.calls.len() {
            self.goes_on(world, index, &mut next);
        }
        let mut changed = |label, change: &dyn Fn(&mut World)| next.push((label, with(world, change)));
        if let Some(command) = world.late_command {
            changed(Label::CommandComesLate, &|world| {
                world.late_command = None;
                world.command(command, self.bounds.sabotage != Sabotage::FenceCutsNothing);
            });
            changed(Label::CommandNeverComes, &|world| world.late_command = None);
        }
        if world.late_cache.is_some() {
            changed(Label::CachesCatchUp, &|world| world.late_cache = None);
        }
        if world.faults > 0 {
            if world.late_cache.is_none() {
                changed(Label::CachesStop, &|world| {
                    world.faults -= 1;
                    world.late_cache = Some(world.present());
                });
            }
            if world.record.holders != 0 {
                changed(Label::RecordIsRemoved, &|world| {
                    world.faults -= 1;
                    world.write(Written::default());
                });
            }
        }
        next
    }

    /// Calls that begin.
    fn calls(&self, world: &World, next: &mut Next) {
        if world.calls.len() >= self.bounds.calls {
            return;
        }
        let runs = |call: Call| world.calls.iter().any(|running| running.call == call);
        let mut begin = |call: Call, cost: u8| {
            if !runs(call) && cost <= world.faults {
                let mut begun = world.clone();
                begun.faults -= cost;
                let running = Running { call, answers: Vec::new(), forsaken: false };
                let Progress::Asks(question) = self.progress(&running) else { return };
                // Before its first answer a call is as good as not begun.
                for (answer, mut begun) in self.answered(&begun, question) {
                    begun.calls.push(Running { answers: vec![answer], ..running.clone() });
                    begun.calls.sort_by_key(|running| running.call);
                    next.push((Label::Begins(call), begun));
                }
            }
        };
        for (node, machine) in (0_u8..).zip(&world.machines) {
            match machine.wish {
                Wish::None => {}
                Wish::Wanted(Attached::No) => begin(Call::Publish(node), 0),
                // The attacher may ask again.
                Wish::Wanted(Attached::Yes) => begin(Call::Publish(node), 1),
                Wish::Unwanted(_) => begin(Call::Unpublish(node), 0),
            }
        }
        if self.bounds.passes && !world.calls.iter().any(|running| matches!(running.call, Call::Pass(_))) {
            begin(Call::Pass(true), 0);
        }
    }

    /// A call gets an answer, is over, or is killed.
    fn goes_on(&self, world: &World, index: usize, next: &mut Next) {
        let running = &world.calls[index];
        let call = running.call;
        let over = |change: &dyn Fn(&mut World)| {
            with(world, &|world| {
                world.calls.remove(index);
                change(world);
            })
        };
        next.push((Label::IsKilled(call), over(&|_| {})));
        match self.progress(running) {
            Progress::Asks(question) => {
                for (answer, mut answered) in self.answered(world, question) {
                    answered.calls[index].answers.push(answer);
                    next.push((Label::Goes(call, Progress::Asks(question), answer), answered));
                }
                return;
            }
            Progress::Published(epoch) if !running.forsaken => {
                let Call::Publish(node) = call else { return };
                next.push((
                    Label::IsHeard(call),
                    over(&|world| {
                        let machine = &mut world.machines[usize::from(node)];
                        if let Wish::Wanted(attached) = &mut machine.wish {
                            (*attached, machine.told) = (Attached::Yes, epoch);
                        }
                    }),
                ));
            }
            Progress::Unpublished if !running.forsaken => {
                let Call::Unpublish(node) = call else { return };
                next.push((
                    Label::IsHeard(call),
                    over(&|world| {
                        if matches!(world.machines[usize::from(node)].wish, Wish::Unwanted(_)) {
                            no_attachment(world, usize::from(node));
                        }
                    }),
                ));
            }
            Progress::Published(_) | Progress::Unpublished | Progress::Ended => {}
        }
        next.push((Label::IsNotHeard(call), over(&|_| {})));
    }

    /// The answers that a question can get, and what each leaves behind; the first is the one without any fault.
    pub(super) fn answered(&self, world: &World, question: Question) -> Vec<(Answer, World)> {
        let sabotage = self.bounds.sabotage;
        let seen = [Some(world.present()), world.late_cache].into_iter().flatten();
        let faulty = |change: &dyn Fn(&mut World)| {
            with(world, &|world| {
                world.faults -= 1;
                change(world);
            })
        };
        match question {
            Question::Record => {
                seen.map(|cache| (Answer::Record(cache.record, cache.revision), world.clone())).collect()
            }
            Question::Facts { of, freshness } => {
                let confirmed = freshness == Freshness::Confirmed && sabotage != Sabotage::CachesAreTrusted;
                let facts = seen.take(if confirmed { 1 } else { 2 }).map(|cache| {
                    let mut known =
                        world.machines.map(|machine| (machine.wish, machine.health, machine.reported));
                    for (node, (known, wish)) in known.iter_mut().zip(cache.wishes).enumerate() {
                        *known = if of & bit(node) == 0 {
                            (wish, Health::Ready, false)
                        } else {
                            (wish, known.1, known.2)
                        };
                    }
                    (Answer::Facts(known), world.clone())
                });
                facts.collect()
            }
            Question::Replace { loaded, by } => {
                if loaded != world.revision && sabotage != Sabotage::NobodyCompares {
                    return vec![(Answer::Changed, world.clone())];
                }
                let write = |world: &mut World| world.write(by);
                let written = with(world, &write);
                let mut outcomes = vec![(Answer::Replaced(written.revision), written)];
                if world.faults > 0 {
                    outcomes.extend([(Answer::Unknown, faulty(&write)), (Answer::Unknown, faulty(&|_| {}))]);
                }
                outcomes
            }
            Question::Testimony(node) => {
                let machine = world.machines[node];
                let silent = if sabotage == Sabotage::SilenceIsGone { Answer::Gone } else { Answer::Silent };
                let answer = match (machine.reachable, machine.uses) {
                    (true, Some(_)) => Answer::InUse,
                    (true, None) => Answer::Gone,
                    (false, _) => silent,
                };
                let mut outcomes = vec![(answer, world.clone())];
                if machine.reachable && world.faults > 0 {
                    outcomes.push((silent, faulty(&|_| {})));
                }
                outcomes
            }
            Question::Link(node) => {
                let machine = world.machines[node];
                let answer = match (machine.reachable, machine.uses, machine.connected) {
                    (false, _, _) => Answer::Silent,
                    (true, Some(_), true) => Answer::InUse,
                    (true, Some(_), false) => Answer::Waits,
                    (true, None, _) => Answer::Gone,
                };
                let mut outcomes = vec![(answer, world.clone())];
                if machine.reachable && world.faults > 0 {
                    outcomes.push((Answer::Silent, faulty(&|_| {})));
                }
                outcomes
            }
            Question::Volume => {
                vec![(Answer::Volume { admitted: world.admitted, epoch: world.epoch }, world.clone())]
            }
            Question::Command(command) => self.commanded(world, command),
        }
    }

    fn commanded(&self, world: &World, command: Command) -> Vec<(Answer, World)> {
        let sabotage = self.bounds.sabotage;
        let blind = matches!(sabotage, Sabotage::NobodyCompares | Sabotage::CachesAreTrusted);
        let mut done = world.clone();
        if blind {
            done.admitted = 0;
        }
        let refused = done.command(command, sabotage != Sabotage::FenceCutsNothing);
        if refused {
            return vec![(Answer::Strangers, world.clone())];
        }
        let answer = Answer::Volume { admitted: done.admitted, epoch: done.epoch };
        let mut outcomes = vec![(answer, done.clone())];
        if world.faults > 0 {
            let faults = world.faults - 1;
            let late_command = Some(command);
            outcomes.push((Answer::Lost, World { faults, ..done }));
            outcomes.push((Answer::Lost, World { faults, ..world.clone() }));
            if world.late_command.is_none() {
                outcomes.push((Answer::Lost, World { late_command, faults, ..world.clone() }));
            }
        }
        outcomes
    }
}

fn with(world: &World, change: &dyn Fn(&mut World)) -> World {
    let mut changed = world.clone();
    change(&mut changed);
    changed
}

/// The VolumeAttachment is gone: whoever was asked for its sake answers nobody.
fn no_attachment(world: &mut World, node: usize) {
    world.machines[node].wish = Wish::None;
    for running in &mut world.calls {
        if let Call::Publish(of) | Call::Unpublish(of) = running.call {
            running.forsaken |= usize::from(of) == node;
        }
    }
}

/// What Kubernetes, and people at it, do about a node.
fn kubernetes(world: &World, node: usize, shared: bool, next: &mut Next) {
    let machine = world.machines[node];
    let mut changed = |label, change: &dyn Fn(&mut World)| next.push((label, with(world, change)));
    match machine.wish {
        Wish::None if world.attaches > 0 => changed(Label::IsWanted(node), &|world| {
            world.attaches -= 1;
            world.machines[node].wish = Wish::Wanted(Attached::No);
        }),
        // Not as long as kubelet reports it in use, unless nothing is heard of kubelet.
        Wish::Wanted(attached) if !machine.reported || machine.health != Health::Ready => {
            changed(Label::IsNotWanted(node), &|world| world.machines[node].wish = Wish::Unwanted(attached));
        }
        Wish::Unwanted(_) if world.faults > 0 => changed(Label::AttachmentIsRemoved(node), &|world| {
            world.faults -= 1;
            no_attachment(world, node);
        }),
        Wish::None | Wish::Wanted(_) | Wish::Unwanted(_) => {}
    }
    match machine.health {
        Health::Ready if !machine.reachable => {
            changed(Label::IsNotReady(node), &|world| world.machines[node].health = Health::NotReady);
        }
        // That a person says so makes a difference only for a second node.
        Health::NotReady if shared => {
            changed(Label::IsOutOfService(node), &|world| world.machines[node].health = Health::OutOfService);
        }
        Health::Ready | Health::NotReady | Health::OutOfService => {}
    }
}

/// What a node does, or what happens to it.
fn machine(world: &World, node: usize, shared: bool, next: &mut Next) {
    let machine = world.machines[node];
    let is_let_in = world.admitted & bit(node) != 0;
    let mut changed = |label, change: &dyn Fn(&mut Machine)| {
        next.push((label, with(world, &|world| change(&mut world.machines[node]))));
    };
    if machine.reachable {
        let attached = machine.wish == Wish::Wanted(Attached::Yes) && machine.health == Health::Ready;
        if machine.uses.is_none() && attached && is_let_in && machine.told == world.epoch {
            changed(Label::Stages(node), &|machine| {
                (machine.uses, machine.connected, machine.reported) = (Some(machine.told), true, true);
            });
        }
        if machine.uses.is_some() {
            changed(Label::Unstages(node), &|machine| {
                (machine.uses, machine.connected, machine.reported) = (None, false, false);
            });
        }
    } else {
        if machine.uses.is_some() {
            changed(Label::LosesPower(node), &|machine| (machine.uses, machine.connected) = (None, false));
        }
        changed(Label::ComesBack(node), &|machine| {
            (machine.reachable, machine.health) = (true, Health::Ready);
            machine.reported = machine.uses.is_some();
        });
    }
    // The kernel does that by itself, whoever hears of the node.
    if machine.uses == Some(world.epoch) && !machine.connected && is_let_in {
        changed(Label::Reconnects(node), &|machine| machine.connected = true);
    }
    if machine.reachable && world.faults > 0 {
        let cut = with(world, &|world| {
            world.faults -= 1;
            world.machines[node].reachable = false;
            if !shared {
                world.machines[node].health = Health::NotReady;
            }
        });
        next.push((Label::IsCutOff(node), cut));
    }
}
