//! The file of several arrays. Every mistake is told with the file, the backend, the field, the value and what to write
//! instead; a field that is not known is one, since a misspelt limit would otherwise be a default.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rds_csi_api::text::Malformed;
use rds_csi_api::{BackendName, Portal};
use serde_json::{Map, Value};

use super::array::{
    BackendConfig, COMMAND_TIMEOUT, CONNECT_TIMEOUT, KEEP_ALIVE, LINE_LIMIT, NVME_PORT, POOL, SESSIONS,
    SSH_PORT, word,
};
use crate::array::routeros::{Destination, Settings};
use crate::backends::topology::Segments;

/// What a file says.
#[derive(Debug)]
pub(super) struct Contents {
    /// The backend whose volumes have bare ids.
    pub(super) standard: BackendConfig,
    /// The others.
    pub(super) others: BTreeMap<BackendName, BackendConfig>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("--config {} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is no YAML.
    #[error("--config {} is not YAML: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        why: String,
    },
    /// It says something that cannot be.
    #[error("--config {}: {place}", path.display())]
    Mistake {
        /// The file.
        path: PathBuf,
        /// The backend and the field.
        place: String,
        /// What is wrong there.
        #[source]
        source: Mistake,
    },
}

/// What is wrong at one place.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A value that cannot be taken.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A file that cannot be read.
    #[error("the file {} cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// Something must be there.
    #[error("is missing: {0}")]
    Missing(&'static str),
    /// Something else is there.
    #[error("is {found}: give {wanted}")]
    Shape {
        /// What is there.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// Nobody knows such a field.
    #[error("is not known: remove it, or use one of {0}")]
    Unknown(String),
    /// What must be one's own is another's, too.
    #[error("is that of backend {0}, too: {1}")]
    Same(String, &'static str),
    /// The default one is not there.
    #[error("names {name}, which is no backend of the file: give one of {known}")]
    NoSuch {
        /// What is named.
        name: BackendName,
        /// What is there.
        known: String,
    },
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Contents, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::Unreadable(path.into(), error))?;
    let value: Value = serde_saphyr::from_str(&text)
        .map_err(|error| Error::Syntax { path: path.into(), why: error.to_string() })?;
    contents(value).map_err(|Misplaced { place, source }| Error::Mistake { path: path.into(), place, source })
}

/// A mistake, and where it stands in the file.
struct Misplaced {
    place: String,
    source: Mistake,
}

fn contents(value: Value) -> Result<Contents, Misplaced> {
    let mut file = Fields::of("the file", String::new(), value)?;
    let chosen: Option<BackendName> = file.parse("default")?;
    let fix = "list the arrays, each with name, address, user, key, knownHosts, nvme.address and fence";
    let list = match file.take("backends") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        None | Some(Value::Null | Value::Array(_)) => {
            return Err(file.mistake("backends", Mistake::Missing(fix)));
        }
        Some(other) => return Err(file.mistake("backends", shape(&other, "a list of arrays"))),
    };
    let mut backends: Vec<BackendConfig> = Vec::new();
    for (index, value) in list.into_iter().enumerate() {
        let (backend, fields) = backend(index, value)?;
        for other in &backends {
            let same = |why| Mistake::Same(other.title.to_string(), why);
            if other.title == backend.title {
                return Err(fields.mistake("name", same("give each array a name of its own")));
            }
            let of = |backend: &BackendConfig| {
                let Destination { host, port, .. } = &backend.ssh.destination;
                (host.clone(), *port, backend.pool.clone())
            };
            if of(other) == of(&backend) {
                return Err(fields.mistake("address", same("give one array, port and pool one name only")));
            }
        }
        backends.push(backend);
    }
    let known = || backends.iter().map(|backend| backend.title.to_string()).collect::<Vec<_>>().join(", ");
    let index = match chosen {
        Some(name) => backends.iter().position(|backend| backend.title == name).ok_or_else(|| {
            let known = known();
            file.mistake("default", Mistake::NoSuch { name, known })
        })?,
        None if backends.len() == 1 => 0,
        None => {
            let fix = "name the backend whose volumes have bare ids; never change it later, since the ids say no more";
            return Err(file.mistake("default", Mistake::Missing(fix)));
        }
    };
    file.end()?;
    let standard = backends.remove(index);
    let others = backends.into_iter().map(|backend| (backend.title.clone(), backend)).collect();
    Ok(Contents { standard, others })
}

/// One array, and its fields by which mistakes are named.
fn backend(index: usize, value: Value) -> Result<(BackendConfig, Fields), Misplaced> {
    let named = value.get("name").and_then(scalar);
    let whose =
        named.map_or_else(|| format!("backend number {}", index + 1), |name| format!("backend {name}"));
    let mut fields = Fields::of("an array", whose, value)?;
    let title = fields.needed("name", "give 1 to 24 lower-case letters, digits or '-', a letter first")?;
    let host = fields.needed_as("address", "give the array's host name or address for SSH", word)?;
    let user = fields.needed_as("user", "give the user on the array", word)?;
    let key = fields.file("key", "give the path of the user's private key")?;
    let known_hosts =
        fields.file("knownHosts", "give the path of the array's host key, as in known_hosts")?;
    let port = fields.parse_as("port", tcp_port)?.unwrap_or(SSH_PORT);
    let pool = fields.parse("pool")?.unwrap_or_else(|| POOL.parse().expect("it is a pool"));
    let fence = fields.needed("fence", "give none, or what doctor proved, such as acl@7.21.2")?;

    let mut nvme = fields.section("nvme")?;
    let address = |text: &str| {
        text.parse().map_err(|_| Malformed::new("address", text, "give an IPv4 or IPv6 address"))
    };
    let portal = Portal {
        address: nvme.needed_as("address", "give the address that nodes reach the exports at", address)?,
        port: nvme.parse_as("port", tcp_port)?.unwrap_or(NVME_PORT),
    };
    nvme.end()?;

    let mut limits = fields.section("limits")?;
    let sessions = limits.parse_as("sessions", count)?.unwrap_or(SESSIONS);
    let line_limit = limits.parse_as("lineBytes", bytes)?.unwrap_or(LINE_LIMIT);
    let command_timeout = limits.parse_as("commandTimeoutSeconds", seconds)?.unwrap_or(COMMAND_TIMEOUT);
    limits.end()?;

    let topology = fields.section("topology")?;
    let mut segments = Vec::new();
    for (label, value) in &topology.map {
        let Some(value) = scalar(value) else {
            return Err(topology.mistake(label, shape(value, "a label's value")));
        };
        segments.push((label.clone(), value));
    }
    let topology = Segments::new(segments).map_err(|error| fields.mistake("topology", error.into()))?;
    fields.end()?;
    let ssh = Settings {
        destination: Destination { host, port, user, key, known_hosts },
        sessions,
        line_limit,
        connect_timeout: CONNECT_TIMEOUT,
        command_timeout,
        keep_alive: KEEP_ALIVE,
    };
    Ok((BackendConfig { title, ssh, pool, portal, fence, topology }, fields))
}

fn tcp_port(text: &str) -> Result<u16, Malformed> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Malformed::new("port", text, "give a TCP port, 1 to 65535"))
}

/// RouterOS takes no more, however it is set.
pub(super) fn count(text: &str) -> Result<NonZeroUsize, Malformed> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= 1000);
    count.ok_or_else(|| {
        Malformed::new("number of sessions", text, "give 1 to 1000, fewer than the array's max-sessions")
    })
}

/// A line with one command may have more: it is sent as it is.
fn bytes(text: &str) -> Result<usize, Malformed> {
    let bytes = text.parse().ok().filter(|bytes| *bytes <= 1 << 20);
    bytes.ok_or_else(|| {
        Malformed::new("length of a line", text, "give the bytes that a line with several commands may have")
    })
}

/// The sidecars give up after 10 to 60 s, and the program ends only after its last command.
fn seconds(text: &str) -> Result<Duration, Malformed> {
    let seconds = text.parse().ok().filter(|seconds| (1..=120).contains(seconds)).map(Duration::from_secs);
    seconds.ok_or_else(|| Malformed::new("timeout", text, "give 1 to 120 seconds"))
}

/// The fields of one part of the file, taken one by one; what is left at the end is not known.
#[derive(Debug)]
struct Fields {
    /// The backend that they belong to; empty for the file's own.
    whose: String,
    /// The part of it, with a dot behind.
    section: &'static str,
    map: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn of(what: &'static str, whose: String, value: Value) -> Result<Self, Misplaced> {
        match value {
            Value::Object(map) => Ok(Self { whose, section: "", map, known: vec![] }),
            other => {
                let place = if whose.is_empty() { what.to_owned() } else { whose };
                Err(Misplaced { place, source: shape(&other, "fields with values, such as name: rack-1") })
            }
        }
    }

    /// The part under that name; an empty one, if it is not there.
    fn section(&mut self, name: &'static str) -> Result<Self, Misplaced> {
        let map = match self.take(name) {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(other) => return Err(self.mistake(name, shape(&other, "fields with values"))),
        };
        Ok(Self { whose: self.whose.clone(), section: name, map, known: vec![] })
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.map.remove(field)
    }

    /// The value of a field, if it has one.
    fn parse_as<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Misplaced> {
        match self.take(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let text = scalar(&value).ok_or_else(|| self.mistake(field, shape(&value, "one value")))?;
                parse(&text).map(Some).map_err(|error| self.mistake(field, error.into()))
            }
        }
    }

    fn parse<T: FromStr<Err = Malformed>>(&mut self, field: &'static str) -> Result<Option<T>, Misplaced> {
        self.parse_as(field, str::parse)
    }

    /// The value of a field that must have one.
    fn needed_as<T>(
        &mut self,
        field: &'static str,
        fix: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Malformed>,
    ) -> Result<T, Misplaced> {
        self.parse_as(field, parse)?.ok_or_else(|| self.mistake(field, Mistake::Missing(fix)))
    }

    fn needed<T: FromStr<Err = Malformed>>(
        &mut self,
        field: &'static str,
        fix: &'static str,
    ) -> Result<T, Misplaced> {
        self.needed_as(field, fix, str::parse)
    }

    /// A path. ssh reads the file itself, again at every connect; one that is missing now is a mistake to tell at once.
    fn file(&mut self, field: &'static str, fix: &'static str) -> Result<PathBuf, Misplaced> {
        let path: PathBuf = self.needed_as(field, fix, |text| Ok(text.into()))?;
        match fs::read(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(self.mistake(field, Mistake::File(path, error))),
        }
    }

    /// Nothing is left.
    fn end(&self) -> Result<(), Misplaced> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(field) => Err(self.mistake(field, Mistake::Unknown(self.known.join(", ")))),
        }
    }

    fn mistake(&self, field: &str, source: Mistake) -> Misplaced {
        let dot = if self.section.is_empty() { "" } else { "." };
        let field = format!("field {}{dot}{field}", self.section);
        let place = if self.whose.is_empty() { field } else { format!("{}, {field}", self.whose) };
        Misplaced { place, source }
    }
}

/// What people write without thinking of its type.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn shape(value: &Value, wanted: &'static str) -> Mistake {
    let found = match value {
        Value::Null => "empty".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a group of fields".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    Mistake::Shape { found, wanted }
}

#[cfg(test)]
mod tests;
