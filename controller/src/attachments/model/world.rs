//! The model's world: what Kubernetes, the array and the nodes are in, as small as it can be said.

use crate::attachments::facts::Attached;

/// As many nodes as there can be.
pub(super) const MOST: usize = 3;

/// Some of the nodes.
pub(super) type Nodes = u8;

/// Everything that there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub record: Written,
    pub revision: u8,
    /// What some controller still takes for so.
    pub late_cache: Option<Cache>,
    /// Whom the array lets in, and under which name the volume is exported.
    pub admitted: Nodes,
    pub epoch: u8,
    /// A command that its sender has given up.
    pub late_command: Option<Command>,
    pub machines: [Machine; MOST],
    pub calls: Vec<Running>,
    /// How often something may still go wrong, and a node be chosen.
    pub faults: u8,
    pub attaches: u8,
}

/// A record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Written {
    pub holders: Nodes,
    pub migration: Option<Trip>,
}

/// A migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Trip {
    pub from: u8,
    pub to: u8,
    pub overdue: bool,
}

/// What a cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cache {
    pub record: Written,
    pub revision: u8,
    pub wishes: [Wish; MOST],
}

/// A command to the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Command {
    Admit(Nodes),
    Dismiss { before: Nodes, after: Nodes },
    Fence { cut: u8, before: Nodes, after: Nodes },
}

/// A node, as it is and as it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    pub wish: Wish,
    /// Under which name it was told to connect.
    pub told: u8,
    pub health: Health,
    /// kubelet's last report.
    pub reported: bool,
    /// Under which name it uses the volume, and whether the array has its connection: then it can write.
    pub uses: Option<u8>,
    pub connected: bool,
    /// Whether anybody hears of it. One that is not heard of writes on.
    pub reachable: bool,
}

/// The VolumeAttachment of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    None,
    Wanted(Attached),
    Unwanted(Attached),
}

/// The Node object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Health {
    Ready,
    NotReady,
    OutOfService,
}

/// A call in a controller, and what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Running {
    pub call: Call,
    pub answers: Vec<Answer>,
    /// Nobody waits for it any more.
    pub forsaken: bool,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Call {
    Publish(u8),
    Unpublish(u8),
    /// Early, or after every migration's time.
    Pass(bool),
}

/// What a seam answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Record(Written, u8),
    Facts([(Wish, Health, bool); MOST]),
    Replaced(u8),
    Changed,
    Unknown,
    Gone,
    InUse,
    /// It uses the volume, and tries to get its connection back.
    Waits,
    Silent,
    Volume {
        admitted: Nodes,
        epoch: u8,
    },
    Strangers,
    Lost,
}

impl World {
    pub(super) fn new(faults: u8, attaches: u8) -> Self {
        let machine = Machine {
            wish: Wish::None,
            told: 0,
            health: Health::Ready,
            reported: false,
            uses: None,
            connected: false,
            reachable: true,
        };
        Self {
            record: Written::default(),
            revision: 0,
            late_cache: None,
            admitted: 0,
            epoch: 0,
            late_command: None,
            machines: [machine; MOST],
            calls: Vec::new(),
            faults,
            attaches,
        }
    }

    /// What is in the record and who is wanted, as everybody could see.
    pub(super) fn present(&self) -> Cache {
        let wishes = self.machines.map(|machine| machine.wish);
        Cache { record: self.record, revision: self.revision, wishes }
    }

    /// Writes the record anew.
    pub(super) fn write(&mut self, record: Written) {
        let known = self.revisions().max().unwrap_or(0);
        self.record = record;
        self.revision = known + 1;
    }

    /// Carries out a command as the array's contract has it; whether it was refused for a stranger.
    pub(super) fn command(&mut self, command: Command, cuts: bool) -> bool {
        let (before, after) = match command {
            Command::Admit(nodes) => (nodes, nodes),
            Command::Fence { cut, .. } if cut != self.epoch => return false,
            Command::Dismiss { before, after } | Command::Fence { before, after, .. } => (before, after),
        };
        if self.admitted & !before != 0 {
            return true;
        }
        self.admitted = after;
        // Only a fence ends a connection that lives.
        if matches!(command, Command::Fence { .. }) && cuts {
            for (node, machine) in self.machines.iter_mut().enumerate() {
                machine.connected &= after & bit(node) != 0;
            }
            if after == 0 {
                self.epoch = self.epochs().max().unwrap_or(0) + 1;
            }
        }
        false
    }

    /// The same world with numbers that count from 0: which revision or epoch it is matters, not how many there were.
    pub(super) fn canonical(mut self) -> Self {
        let rank = |mut known: Vec<u8>| {
            known.sort_unstable();
            known.dedup();
            move |number: u8| u8::try_from(known.partition_point(|other| *other < number)).unwrap_or(u8::MAX)
        };
        let (revision, epoch) = (rank(self.revisions().collect()), rank(self.epochs().collect()));
        self.revision = revision(self.revision);
        self.epoch = epoch(self.epoch);
        if let Some(cache) = &mut self.late_cache {
            cache.revision = revision(cache.revision);
        }
        if let Some(Command::Fence { cut, .. }) = &mut self.late_command {
            *cut = epoch(*cut);
        }
        for machine in &mut self.machines {
            machine.told = epoch(machine.told);
            machine.uses = machine.uses.map(&epoch);
        }
        for answer in self.calls.iter_mut().flat_map(|call| &mut call.answers) {
            match answer {
                Answer::Record(_, number) | Answer::Replaced(number) => *number = revision(*number),
                Answer::Volume { epoch: number, .. } => *number = epoch(*number),
                _ => {}
            }
        }
        self
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.calls.iter().flat_map(|call| &call.answers)
    }

    fn revisions(&self) -> impl Iterator<Item = u8> {
        let of_answers = self.answers().filter_map(|answer| match answer {
            Answer::Record(_, revision) | Answer::Replaced(revision) => Some(*revision),
            _ => None,
        });
        of_answers.chain([self.revision]).chain(self.late_cache.map(|cache| cache.revision))
    }

    fn epochs(&self) -> impl Iterator<Item = u8> {
        let of_answers = self.answers().filter_map(|answer| match answer {
            Answer::Volume { epoch, .. } => Some(*epoch),
            _ => None,
        });
        let late = match self.late_command {
            Some(Command::Fence { cut, .. }) => Some(cut),
            _ => None,
        };
        let of_machines = self.machines.iter().flat_map(|machine| [Some(machine.told), machine.uses]);
        of_answers.chain([self.epoch]).chain(late).chain(of_machines.flatten())
    }
}

/// The set of one node.
pub(super) const fn bit(node: usize) -> Nodes {
    1 << node
}
