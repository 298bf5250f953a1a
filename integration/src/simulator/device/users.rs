//! `/user` and `/user/group`: who may do what.

use std::fmt;
use std::str::FromStr;

use super::Item;
use crate::simulator::script::{ItemId, Value};

/// Every policy there is, in the order in which the device lists them.
const POLICIES: [&str; 17] = [
    "local",
    "telnet",
    "ssh",
    "ftp",
    "reboot",
    "read",
    "write",
    "policy",
    "test",
    "winbox",
    "password",
    "web",
    "sniff",
    "sensitive",
    "api",
    "romon",
    "rest-api",
];

/// A group of users: what its members may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    name: String,
    granted: Vec<&'static str>,
}

impl Group {
    /// The device's own group `full`.
    pub fn full() -> Self {
        Self::without("full", &[])
    }

    /// What a driver needs and not a policy more: `ssh,read,write`.
    pub fn least() -> Self {
        Self { name: "rds-csi".to_owned(), granted: vec!["ssh", "read", "write"] }
    }

    /// A group with all policies but these.
    fn without(name: &str, denied: &[&str]) -> Self {
        let granted = POLICIES.into_iter().filter(|policy| !denied.contains(policy)).collect();
        Self { name: name.to_owned(), granted }
    }

    /// The groups that every device has.
    fn built_in() -> [Self; 3] {
        let read = Self::without("read", &["ftp", "write", "policy"]);
        [read, Self::without("write", &["ftp", "policy"]), Self::full()]
    }

    pub(in crate::simulator) fn allows(&self, policy: &str) -> bool {
        self.granted.contains(&policy)
    }

    /// What is granted, then what is denied with a `!` before it.
    fn policy(&self) -> Value {
        let granted = POLICIES.into_iter().filter(|policy| self.allows(policy)).map(Value::text);
        let denied = POLICIES.into_iter().filter(|policy| !self.allows(policy));
        Value::list(granted.chain(denied.map(|policy| Value::text(format!("!{policy}")))))
    }
}

/// Why a text names no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no policy: give full, write, read, or policies such as ssh,read,write")]
pub struct InvalidGroup(String);

impl FromStr for Group {
    type Err = InvalidGroup;

    /// The name of a group that every device has, or policies with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(group) = Self::built_in().into_iter().find(|group| group.name == text) {
            return Ok(group);
        }
        let known = |word: &str| {
            let policy = POLICIES.into_iter().find(|policy| *policy == word.trim());
            policy.ok_or_else(|| InvalidGroup(word.to_owned()))
        };
        let granted = text.split(',').map(known).collect::<Result<_, _>>()?;
        Ok(Self { name: Self::least().name, granted })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct User {
    pub(in crate::simulator) name: String,
    pub(in crate::simulator) group: Group,
}

/// The owner of the device, and who logs in.
pub(super) fn users(user: &User) -> Vec<Item> {
    let owner = User { name: "admin".to_owned(), group: Group::full() };
    let item = |(number, user): (u64, &User)| {
        let properties = vec![
            ("name", Value::text(&user.name)),
            ("group", Value::text(user.group.to_string())),
            ("address", Value::text("")),
            ("disabled", Value::Bool(false)),
            ("expired", Value::Bool(false)),
        ];
        Item::new(ItemId(number), properties)
    };
    let others = (user.name != owner.name).then_some(user);
    let all = match others {
        Some(user) => vec![(1, &owner), (2, user)],
        None => vec![(1, user)],
    };
    all.into_iter().map(item).collect()
}

pub(super) fn groups(user: &User) -> Vec<Item> {
    let mut groups = Group::built_in().to_vec();
    if groups.iter().all(|group| group.name != user.group.name) {
        groups.push(user.group.clone());
    }
    let item = |(number, group): (u64, &Group)| {
        let properties = vec![
            ("name", Value::text(&group.name)),
            ("policy", group.policy()),
            ("skin", Value::text("default")),
        ];
        Item::new(ItemId(number), properties)
    };
    (1..).zip(&groups).map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_or_listed() {
        assert_eq!("ssh,read,write".parse(), Ok(Group::least()));
        assert_eq!("full".parse(), Ok(Group::full()));
        assert!(!"read".parse::<Group>().unwrap().allows("write"));
        assert_eq!("ssh,everything".parse::<Group>(), Err(InvalidGroup("everything".to_owned())));
    }

    #[test]
    fn a_policy_tells_what_is_granted_and_then_what_is_denied() {
        let told = Group::least().policy().to_string();
        assert!(told.starts_with("ssh;read;write;!local;!telnet;!ftp;"), "{told}");
        assert_eq!(told.split(';').count(), 17);
    }
}
