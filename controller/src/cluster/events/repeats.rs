//! What was told already: the same again is a number on the event that there is, and not too often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Note;

/// So long after an event the same is a repeat of it.
const SAME: Duration = Duration::from_mins(10);

/// Between two changes of an event's number.
const PAUSE: Duration = Duration::from_secs(30);

/// How many events are remembered, and so how many different ones may be posted within [`SAME`].
const MOST: usize = 1000;

/// Which events were posted of late.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<Note, Posted>);

#[derive(Debug)]
struct Posted {
    event: String,
    count: i32,
    since: Instant,
    written: Instant,
}

/// What is to be done about a note.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Post {
    /// A new event.
    Anew,
    /// Another number on this one.
    Again { event: String, count: i32 },
    /// Nothing now.
    Nothing,
}

impl Repeats {
    /// What is to be done about this note.
    pub(super) fn next(&mut self, note: &Note, now: Instant) -> Post {
        self.0.retain(|_, posted| now.saturating_duration_since(posted.since) < SAME);
        let Some(posted) = self.0.get_mut(note) else {
            return if self.0.len() < MOST { Post::Anew } else { Post::Nothing };
        };
        posted.count += 1;
        if now.saturating_duration_since(posted.written) < PAUSE {
            return Post::Nothing;
        }
        posted.written = now;
        Post::Again { event: posted.event.clone(), count: posted.count }
    }

    /// It was posted as this event.
    pub(super) fn posted(&mut self, note: &Note, event: String, now: Instant) {
        self.0.insert(note.clone(), Posted { event, count: 1, since: now, written: now });
    }

    /// The event that it was posted as is gone.
    pub(super) fn forget(&mut self, note: &Note) {
        self.0.remove(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachments::herald::Severity;
    use crate::cluster::events::Object;

    fn note(message: &str) -> Note {
        Note {
            object: Object::Volume("pv".into()),
            severity: Severity::Warning,
            reason: "AttachmentConflict".into(),
            message: message.into(),
            once: None,
        }
    }

    #[test]
    fn the_same_again_is_a_number_and_not_at_once() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.next(&note("a"), begin), Post::Anew);
        repeats.posted(&note("a"), "event".into(), begin);
        assert_eq!(repeats.next(&note("a"), begin), Post::Nothing);
        assert_eq!(repeats.next(&note("b"), begin), Post::Anew);
        let again = Post::Again { event: "event".into(), count: 3 };
        assert_eq!(repeats.next(&note("a"), begin + PAUSE), again);
        assert_eq!(repeats.next(&note("a"), begin + PAUSE), Post::Nothing);
        assert_eq!(repeats.next(&note("a"), begin + SAME), Post::Anew);
    }

    #[test]
    fn not_more_is_told_than_can_be_remembered() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        for number in 0..MOST {
            repeats.posted(&note(&number.to_string()), "event".into(), begin);
        }
        assert_eq!(repeats.next(&note("one more"), begin), Post::Nothing);
        assert_eq!(repeats.next(&note("one more"), begin + SAME), Post::Anew);
    }
}
