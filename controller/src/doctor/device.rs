//! Who answers at the array's address, who we are to it, and what its RouterOS can do: all that is known without making
//! anything.

use std::time::Duration;

use futures_util::future::join_all;
use rds_csi_api::{Nqn, status};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check::Check;
use super::report::Outcome;
use super::{Examination, Stopped};
use crate::array::Error;
use crate::array::routeros::{exact, literally, quote};

const CONNECT: Duration = Duration::from_secs(10);

/// What the driver's own user needs, and `test` for a ping by hand.
const NEEDED: [&str; 3] = ["ssh", "read", "write"];
const HARMLESS: &str = "test";

/// The largest number that floats of 64 bits tell from its neighbours: 8 PiB less one byte.
const EXACT: &str = "9007199254740991";

/// What a text is framed in, to be a line.
const FRAME: usize = 300;

const GIB: u64 = 1 << 30;

/// The way to the array, and through its door.
pub(super) async fn reach(x: &mut Examination) -> Result<(), Stopped> {
    let to = x.config.ssh.destination.clone();
    let address = format!("{} port {}", to.host, to.port);
    let unreachable = match timeout(CONNECT, TcpStream::connect((to.host.as_str(), to.port))).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no connection within {} s", CONNECT.as_secs())),
    };
    x.must(Check::Address, unreachable.map_or(Ok(address.clone()), |why| Err(format!("{address}: {why}"))))?;
    match x.ask(":put \"hello\"").await {
        Err(Error::Unreachable { reason }) => {
            let (passed, failed): (&[Check], _) = match Door::of(&reason) {
                Door::OtherKey => (&[], Check::HostKey),
                Door::KeyRefused | Door::NoAnswer => (&[Check::HostKey], Check::Login),
                Door::TooOld => (&[Check::HostKey, Check::Login], Check::Version),
                Door::Unknown => {
                    x.report.note(Check::HostKey, Outcome::NotProved, &reason);
                    (&[], Check::Login)
                }
            };
            x.report.note_all(passed, Outcome::Proved, "ssh accepted it");
            x.must(failed, Err(reason))
        }
        Err(error @ (Error::Lost { .. } | Error::Late { .. })) => {
            x.report.note(Check::HostKey, Outcome::Proved, "ssh accepted it");
            x.must(Check::Login, Err(status::chain(&error)))
        }
        // Any other answer is one.
        _ => {
            let known_hosts = to.known_hosts.display();
            x.report.note(Check::HostKey, Outcome::Proved, format!("it is the one in {known_hosts}"));
            x.must(Check::Login, Ok(format!("user {}, key {}", to.user, to.key.display())))?;
            let version = x.array.version();
            x.must(Check::Version, version.ok_or_else(|| "the connection was lost".into()))
        }
    }
}

/// Why there is no connection, in the words of ssh, or of our own session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The host key is another, or none is known.
    OtherKey,
    /// The host key was right, and our own was refused.
    KeyRefused,
    /// We are in, and nothing is answered.
    NoAnswer,
    /// It is answered, by a release that the driver does not serve.
    TooOld,
    Unknown,
}

impl Door {
    fn of(reason: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        if says(&["Host key verification failed", "host key is known for"]) {
            Self::OtherKey
        } else if says(&["Permission denied", "Too many authentication failures"]) {
            Self::KeyRefused
        } else if says(&["is too old", "asked for its RouterOS version"]) {
            Self::TooOld
        } else if says(&["connected, but"]) {
            Self::NoAnswer
        } else {
            Self::Unknown
        }
    }
}

/// What RouterOS it is, and who we are to it. Nothing but a script that cannot even be framed stops the rest.
pub(super) async fn abilities(x: &mut Examination) -> Result<(), Stopped> {
    let caught = x.ask(":onerror why in={:error \"told\"} do={:put (\"caught \" . $why)}").await;
    let caught = judged(caught, |said| said.starts_with("caught told"));
    x.must(Check::Errors, caught)?;

    user(x).await;
    sessions(x).await;
    x.go_on()?;

    // What is cut where nothing is left is empty, and what is split at its commas reads as lists do.
    let functions = ":local twice do={:put ($a . $a)}; $twice a=\"x\"; :put [:len [:pick \"abc\" 2 1]]; \
                     :put [:tostr [:toarray \"a,b\"]]";
    let functions = x.ask(functions).await;
    x.may(Check::Functions, judged(functions, |said| said == "xx\n0\na;b"));
    let value = x.ask(":local a \"x.y\"; :put \"$a/z\"; :put (\"x.y/z\" ~ \"^$a/z\\$\")").await;
    x.may(Check::Interpolation, judged(value, |said| said == "x.y/z\ntrue"));
    let printable: String = ('!'..='~').chain(" .".chars()).collect();
    let control = "\u{1}\t\r\n\u{7f}";
    let quoted = format!(":put {}; :put [:len {}]", quote(printable.as_str()), quote(control));
    let came_back = x.ask(&quoted).await;
    let expected = format!("{printable}\n{}", control.len());
    x.may(Check::Quoting, judged(came_back, |said| said == expected));
    let pattern = quote(format!("^{}( |$)", literally("pvc-a.b")));
    let matched = format!(
        ":put (\"pvc-a.b x\" ~ {pattern}); :put (\"pvc-aXb x\" ~ {pattern}); :put (\"a/b\" ~ \"^[^/]+\\$\")"
    );
    let matched = x.ask(&matched).await;
    x.may(Check::Patterns, judged(matched, |said| said == "true\nfalse\nfalse"));
    let long = x.config.ssh.line_limit.saturating_sub(FRAME);
    let counted = x.ask(&format!(":put [:len {}]", quote("x".repeat(long)))).await;
    let counted = judged(counted, |said| said == long.to_string());
    let limit = x.config.ssh.line_limit;
    x.may(Check::LongLines, counted.map(|_| format!("{limit} bytes")));
    let removed = "/disk remove [/disk find slot=$volume]; \
                   /disk/btrfs/subvolume remove [/disk/btrfs/subvolume find name=$volume]";
    let removed = x.ask(removed).await;
    x.may(Check::RemoveNothing, judged(removed, str::is_empty));
    x.go_on()?;

    let nothing = x.ask(":put [:serialize to=json [/disk print detail as-value where slot=$volume]]").await;
    x.may(Check::Json, judged(nothing, |said| said == "[]"));
    let number = x.ask(&format!(":put [:serialize to=json {{\"n\"={EXACT}}}]")).await;
    x.may(Check::ExactNumbers, judged(number, is_exact));
    pool(x).await;
    firewall(x).await;
    let nqn = Nqn::of_volume(&x.scratch.volume);
    let prefix = &x.config.prefix;
    let covered = if prefix.covers(&nqn) {
        Ok(format!("{prefix} covers {nqn}"))
    } else {
        Err(format!("{prefix} does not cover {nqn}"))
    };
    x.must(Check::Prefix, covered)
}

/// An answer that is as it must be, or what is wrong with it.
pub(super) fn judged(
    answer: Result<String, Error>,
    is_right: impl FnOnce(&str) -> bool,
) -> Result<String, String> {
    match answer {
        Ok(said) if is_right(&said) => Ok(short(&said)),
        Ok(said) => Err(format!("it said: {}", short(&said))),
        Err(error) => Err(status::chain(&error)),
    }
}

fn short(said: &str) -> String {
    said.chars().take(120).collect()
}

/// `{"n":9007199254740991}`, with zeros behind a point, or as a text.
fn is_exact(json: &str) -> bool {
    let number = json.strip_prefix("{\"n\":").and_then(|rest| rest.strip_suffix('}')).unwrap_or(json);
    let number = number.trim_matches('"');
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    whole == EXACT && fraction.bytes().all(|digit| digit == b'0')
}

async fn user(x: &mut Examination) {
    let user = quote(x.config.ssh.destination.user.clone());
    let asked = format!(
        ":local group [/user get [/user find name={user}] group]; :put $group; \
         :put [:tostr [/user/group get [/user/group find name=$group] policy]]"
    );
    let said = match x.ask(&asked).await {
        Ok(said) => said,
        Err(error) => {
            let why = status::chain(&error);
            x.report.note_all(&[Check::Policies, Check::LeastPrivilege], Outcome::NotProved, &why);
            return;
        }
    };
    let Some(Policies { group, granted }) = Policies::read(&said) else {
        let checks = [Check::Policies, Check::LeastPrivilege];
        x.report.note_all(&checks, Outcome::NotProved, &format!("it said: {}", short(&said)));
        return;
    };
    let missing: Vec<_> = NEEDED.into_iter().filter(|needed| !granted.contains(needed)).collect();
    let evidence = format!("group {group} has {}", granted.join(", "));
    if missing.is_empty() {
        x.may(Check::Policies, Ok(evidence));
    } else {
        x.may(Check::Policies, Err(format!("{evidence}; {} missing", missing.join(", "))));
    }
    let more: Vec<_> =
        granted.into_iter().filter(|policy| !NEEDED.contains(policy) && *policy != HARMLESS).collect();
    // Who has the policy 'policy' may give itself every other.
    let outcome = match more[..] {
        [] => Outcome::Proved,
        _ if group == "full" || more.contains(&"policy") => Outcome::Failed,
        _ => Outcome::Warning,
    };
    let evidence = if more.is_empty() {
        format!("group {group}")
    } else {
        format!("group {group} has {} too", more.join(", "))
    };
    x.report.note(Check::LeastPrivilege, outcome, evidence);
}

/// A group and what it may do.
struct Policies<'a> {
    group: &'a str,
    granted: Vec<&'a str>,
}

impl<'a> Policies<'a> {
    /// Two lines: the group, and its policies with `,` or `;` between them; those with a `!` are not granted.
    fn read(said: &'a str) -> Option<Self> {
        let (group, policies) = said.split_once('\n')?;
        let named = policies.split([',', ';', '\n']).map(str::trim).filter(|policy| !policy.is_empty());
        let granted: Vec<_> = named.filter(|policy| !policy.starts_with('!')).collect();
        let is_word = |policy: &&str| policy.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        (!granted.is_empty() && granted.iter().all(is_word)).then_some(Self { group: group.trim(), granted })
    }
}

async fn sessions(x: &mut Examination) {
    let wanted = x.config.ssh.sessions.get();
    // Open connections may be listed, too; the service itself comes first.
    let limit = x.ask(":put [/ip/service get ([/ip/service find name=\"ssh\"]->0) max-sessions]").await;
    let limit = limit.ok().and_then(|said| said.trim().parse::<usize>().ok());
    // Questions about the same go one after the other.
    let at_once = join_all((0..wanted).map(async |number| {
        let id = format!("pvc-doctor-session-{number}");
        x.array.ask(&id.parse().expect("letters, digits and '-' make an id"), ":put \"here\"").await
    }))
    .await;
    let refused = at_once.into_iter().find_map(Result::err);
    let (outcome, evidence) = match (refused, limit) {
        (Some(error), _) => (Outcome::Failed, format!("{wanted} at once: {}", status::chain(&error))),
        (None, Some(limit)) => (
            room(wanted, limit),
            format!("{wanted} at once were answered; it takes {limit} from everybody together"),
        ),
        (None, None) => (
            Outcome::Warning,
            format!("{wanted} at once were answered; what it takes at most it does not tell"),
        ),
    };
    x.report.note(Check::Sessions, outcome, evidence);
}

/// Two more are for a person, and for the other replica's connection.
fn room(wanted: usize, limit: usize) -> Outcome {
    if wanted > limit {
        Outcome::Failed
    } else if wanted.saturating_add(2) > limit {
        Outcome::Warning
    } else {
        Outcome::Proved
    }
}

async fn pool(x: &mut Examination) {
    let name = x.config.pool.clone();
    let mount = quote(format!("^/?{}$", literally(name.as_str())));
    let asked = format!(":put [:serialize to=json [/disk print detail as-value where mount-point~{mount}]]");
    let said = match x.ask(&asked).await {
        Ok(said) => said,
        Err(error) => return x.may(Check::Pool, Err(status::chain(&error))),
    };
    let disks: Option<Vec<Value>> = serde_json::from_str(&said).ok();
    let Some([disk]) = disks.as_deref() else {
        return x.may(Check::Pool, Err(format!("no single disk is mounted as {name}: {}", short(&said))));
    };
    let fs = disk["fs"].as_str().unwrap_or("?");
    if fs != "btrfs" {
        return x.may(Check::Pool, Err(format!("{name} is of type {fs}")));
    }
    x.may(Check::Pool, Ok(format!("{name} is btrfs on {}", disk["slot"].as_str().unwrap_or("a disk"))));
    let free = exact(&disk["free"].to_string());
    let outcome = match free {
        Some(GIB..) => Outcome::Proved,
        Some(_) => Outcome::Failed,
        None => Outcome::NotProved,
    };
    let free = free.map_or_else(|| disk["free"].to_string(), |free| format!("{} GiB", free / GIB));
    x.report.note(Check::Space, outcome, format!("{free} free"));
}

/// What a fence would need that keeps a node's address from the exports. The list is this run's own, no rule names it, and
/// the array forgets the address by itself.
async fn firewall(x: &mut Examination) {
    let asked = ":local rules [:len [/ip/firewall/raw find]]; \
                 /ip/firewall/address-list add list=$volume address=192.0.2.1 timeout=1m; \
                 /ip/firewall/address-list remove [/ip/firewall/address-list find list=$volume]; \
                 :put $rules";
    let (outcome, evidence) = match judged(x.ask(asked).await, |said| said.parse::<u32>().is_ok()) {
        Ok(rules) => (Outcome::Proved, format!("{rules} rules read; an address was listed, and taken off")),
        Err(why) => (Outcome::NotAvailable, why),
    };
    x.report.note(Check::Firewall, outcome, evidence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_tells_a_wrong_host_key_from_a_refused_user() {
        let changed = "Host key for [127.0.0.1]:22 has changed and you have requested strict checking.; \
                       Host key verification failed.";
        let unknown = "No ED25519 host key is known for array and you have requested strict checking.; \
                       Host key verification failed.";
        assert_eq!((Door::of(changed), Door::of(unknown)), (Door::OtherKey, Door::OtherKey));
        assert_eq!(Door::of("csi@array: Permission denied (publickey)."), Door::KeyRefused);
        assert_eq!(Door::of("RouterOS 7.20 is too old: 7.21 or newer is needed"), Door::TooOld);
        let silent = "connected, but within 10 s the array did not tell its version";
        assert_eq!(Door::of(silent), Door::NoAnswer);
        assert_eq!(Door::of("Connection closed by 10.0.0.1 port 22"), Door::Unknown);
    }

    #[test]
    fn a_number_is_exact_in_every_dialect_or_not_at_all() {
        for json in ["9007199254740991", "9007199254740991.000000", "\"9007199254740991\""] {
            assert!(is_exact(&format!("{{\"n\":{json}}}")), "{json}");
        }
        for json in ["9007199254740992", "9.007199254740991e15", "9007199254740991.5", "null"] {
            assert!(!is_exact(&format!("{{\"n\":{json}}}")), "{json}");
        }
    }

    #[test]
    fn what_a_group_may_not_do_is_not_among_what_it_may() {
        let read = |said: &'static str| Policies::read(said).map(|read| (read.group, read.granted));
        assert_eq!(read("csi\nssh;read;write;!ftp"), Some(("csi", vec!["ssh", "read", "write"])));
        assert_eq!(read("full\nlocal,rest-api"), Some(("full", vec!["local", "rest-api"])));
        assert_eq!((read("csi"), read("csi\n"), read("csi\nno such item (4)")), (None, None, None));
    }

    #[test]
    fn people_need_sessions_too() {
        assert_eq!(
            [room(4, 20), room(19, 20), room(20, 20), room(21, 20)],
            [Outcome::Proved, Outcome::Warning, Outcome::Warning, Outcome::Failed]
        );
    }
}
