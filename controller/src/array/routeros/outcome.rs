//! From how a call ended to why the array did not do what it was asked.

use rds_csi_api::VolumeId;

use super::reply::{self, Known, Reply};
use super::script::Mark;
use crate::array::{Error, Subject};

/// What a call is about, and what it takes something from; the two are one for most.
pub(super) struct Concerns {
    pub(super) subject: Subject,
    pub(super) source: Subject,
}

impl Concerns {
    pub(super) fn of(subject: impl Into<Subject>) -> Self {
        let subject = subject.into();
        Self { source: subject.clone(), subject }
    }

    pub(super) fn taking_from(self, source: impl Into<Subject>) -> Self {
        Self { source: source.into(), ..self }
    }
}

/// What a call printed that was done.
pub(super) fn printed(reply: Reply, concerns: &Concerns) -> Result<String, Error> {
    let subject = || concerns.subject.clone();
    Err(match reply {
        Reply::Done(printed) => return Ok(printed),
        Reply::Stopped(mark) => stopped(mark, concerns),
        Reply::Failed(Known::NoSpace, text) => Error::Full { subject: subject(), text },
        Reply::Failed(Known::NoPermission, text) => Error::Denied { text },
        Reply::Failed(Known::Raced, text) => Error::Concurrent { subject: subject(), text },
        Reply::Failed(Known::Unfinished, text) => garbled("the array did not wait for its end", &text),
        Reply::Failed(Known::Other, text) => Error::Refused { text },
        Reply::NotUnderstood(text) => Error::NotUnderstood { text },
        Reply::Unknown(text) => garbled("its report is missing", &text),
    })
}

/// An answer that cannot be read. Neither it nor what serde quotes of it may be of any length.
pub(super) fn garbled(why: &str, text: &str) -> Error {
    Error::Garbled { why: reply::kept(why), text: reply::kept(text) }
}

/// That there is none.
pub(super) fn missing(subject: Subject) -> Error {
    match subject {
        Subject::Volume(id) => Error::Missing(id),
        Subject::Snapshot(id) => Error::MissingSnapshot(id),
        Subject::Pool(pool) => Error::NoPool { pool },
    }
}

fn stopped(mark: Mark, concerns: &Concerns) -> Error {
    let source = || concerns.source.clone();
    let foreign = |why: &str| Error::Foreign { subject: source(), why: why.into() };
    // Only volumes have these marks.
    let of_a_volume = |error: fn(VolumeId) -> Error| match source() {
        Subject::Volume(id) => error(id),
        Subject::Snapshot(_) | Subject::Pool(_) => garbled("it is about a volume", mark.as_str()),
    };
    let of_a_snapshot = matches!(concerns.source, Subject::Snapshot(_));
    match mark {
        // Only what the Go driver called a snapshot has a disk.
        Mark::NotAVolume if of_a_snapshot => foreign("its disk is not over the file of its name in the pool"),
        Mark::Strangers if of_a_snapshot => {
            foreign("its disk lets hosts in by name, and no snapshot of the earlier driver does")
        }
        Mark::Missing | Mark::NoSource => missing(source()),
        Mark::NotAVolume => foreign("its disk is no file disk in the pool, or has another NQN"),
        Mark::OtherCluster => foreign("it carries the name of another cluster"),
        Mark::OtherFiles => {
            foreign("its subvolume holds other files than one image, or another disk uses what is in it")
        }
        Mark::NoSnapshot => foreign("its subvolume is not read-only, or carries the name of another cluster"),
        // Who knows the path puts it in.
        Mark::Leftover => Error::Leftover { path: concerns.subject.to_string() },
        Mark::Strangers => of_a_volume(Error::Strangers),
        Mark::Open => of_a_volume(Error::Open),
        Mark::Flat => of_a_volume(Error::Flat),
        Mark::NoImage => Error::Damaged { subject: source(), how: "its image is missing".into() },
        Mark::NoPlainSize => {
            Error::Refused { text: format!("it does not write the size of {} in digits", concerns.source) }
        }
        Mark::Twice => {
            Error::Concurrent { subject: concerns.subject.clone(), text: "it was taken twice".into() }
        }
    }
}
