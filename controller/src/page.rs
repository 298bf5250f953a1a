//! Listings in pages: sorted by id, so that a page goes on after the last id of the one before, whatever came or went
//! meanwhile.

use std::fmt;
use std::str::FromStr;

use rds_csi_api::{Failure, Kind, VolumeId};

/// The form of tokens. One of another form is not understood by halves.
const VERSION: &str = "1:";

/// Which part of a listing is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What comes after this; from the beginning without one.
    pub after: Option<Token>,
    /// No more than so many.
    pub most: Option<usize>,
}

/// Where a page ended: the last id of it, of a volume or a snapshot, whose alphabets are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(VolumeId);

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in it.
    pub entries: Vec<T>,
    /// Where the next one goes on, if there is more.
    pub next: Option<Token>,
}

/// Why there is no such part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A page of less than nothing.
    #[error("max_entries is {0}: give 0 for all, or how many")]
    Negative(i32),
    /// A token that no page ended with.
    #[error("starting_token {0:?} is none that this driver gave: list from the beginning")]
    Token(String),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Negative(_) => Kind::Invalid,
            Self::Token(_) => Kind::Stale,
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id = text.strip_prefix(VERSION).and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| Error::Token(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{}", self.0)
    }
}

impl Asked {
    /// As CSI asks: 0 and an empty token are 'not given'.
    pub fn parse(max_entries: i32, starting_token: &str) -> Result<Self, Error> {
        let most = usize::try_from(max_entries).map_err(|_| Error::Negative(max_entries))?;
        let after = (!starting_token.is_empty()).then(|| starting_token.parse()).transpose()?;
        Ok(Self { after, most: (most > 0).then_some(most) })
    }

    /// That part of everything there is, in whatever order it comes.
    pub fn of<T>(&self, mut all: Vec<T>, id: impl Fn(&T) -> &str) -> Page<T> {
        all.sort_by(|one, other| id(one).cmp(id(other)));
        if let Some(Token(last)) = &self.after {
            all.retain(|entry| id(entry) > last.as_str());
        }
        let most = self.most.unwrap_or(usize::MAX);
        let more = all.len() > most;
        all.truncate(most);
        // A token is made of an id that is one, so it can be read again.
        let next = all.last().filter(|_| more).and_then(|last| id(last).parse().ok()).map(Token);
        Page { entries: all, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_whole_listing_even_if_it_changes_meanwhile() {
        let mut all = vec!["pvc-c", "rack-2/pvc-a", "pvc-a", "pvc-b"];
        let mut asked = Asked::parse(2, "").unwrap();
        let first = asked.of(all.clone(), |id| id);
        assert_eq!(first.entries, ["pvc-a", "pvc-b"]);
        all.retain(|id| *id != "pvc-b");
        asked.after = Some(first.next.unwrap().to_string().parse().unwrap());
        let second = asked.of(all, |id| id);
        assert_eq!((second.entries, second.next), (vec!["pvc-c", "rack-2/pvc-a"], None));
    }

    #[test]
    fn everything_is_one_page_unless_said_otherwise() {
        let page = Asked::parse(0, "").unwrap().of(vec!["b", "a"], |id| id);
        assert_eq!((page.entries, page.next), (vec!["a", "b"], None));
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert_eq!(Asked::parse(-1, "").unwrap_err().kind(), Kind::Invalid);
        for token in ["invalid-token", "pvc-a", "2:pvc-a", "1:", "1:a b"] {
            assert_eq!(Asked::parse(0, token).unwrap_err().kind(), Kind::Stale, "{token:?}");
        }
    }
}
