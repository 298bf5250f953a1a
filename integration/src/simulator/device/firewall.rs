//! `/ip/firewall`: address lists, the rules of the raw table, and the connections that are tracked.
//!
//! They are kept and told; no packet is looked at.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::Item;
use super::system::date_time;
use crate::simulator::backend::Connection;
use crate::simulator::menus::{Arguments, time};
use crate::simulator::script::{Failure, ItemId, Value};

/// What a raw rule may say, in the order in which it is shown.
const RULE: [&str; 8] =
    ["chain", "action", "protocol", "src-address", "dst-address", "src-address-list", "dst-port", "comment"];

#[derive(Debug, Default)]
pub(super) struct Firewall {
    next: u64,
    addresses: BTreeMap<ItemId, Address>,
    rules: BTreeMap<ItemId, Rule>,
    /// Connections that a test speaks of; those that the storage sees come on top.
    pub(super) connections: Vec<Connection>,
}

/// An address on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedAddress {
    /// Name of the list.
    pub list: String,
    /// Address or network.
    pub address: String,
    /// Free text.
    pub comment: String,
}

#[derive(Debug)]
struct Address {
    listed: ListedAddress,
    created: SystemTime,
    /// When it goes by itself.
    expires: Option<Instant>,
}

impl Address {
    fn is_there(&self) -> bool {
        self.expires.is_none_or(|end| end > Instant::now())
    }
}

#[derive(Debug)]
struct Rule {
    settings: BTreeMap<&'static str, String>,
    disabled: bool,
}

impl Firewall {
    fn number(&mut self) -> ItemId {
        self.next += 1;
        ItemId(self.next)
    }

    /// What a reboot leaves: addresses with a timeout were only in memory, and nobody is connected.
    pub(super) fn reboot(&mut self) {
        self.addresses.retain(|_, address| address.expires.is_none());
        self.connections.clear();
    }

    pub(super) fn listed(&self) -> Vec<ListedAddress> {
        self.addresses
            .values()
            .filter(|address| address.is_there())
            .map(|address| address.listed.clone())
            .collect()
    }

    pub(super) fn address_items(&self) -> Vec<Item> {
        let present = self.addresses.iter().filter(|(_, address)| address.is_there());
        let item = |(id, address): (&ItemId, &Address)| {
            let ListedAddress { list, address: own, comment } = &address.listed;
            let mut properties = vec![
                ("list", Value::text(list)),
                ("address", Value::text(own)),
                ("creation-time", Value::text(date_time(address.created))),
            ];
            if let Some(end) = address.expires {
                let left = time::rounded(end.saturating_duration_since(Instant::now()));
                properties.push(("timeout", Value::text(time::shown(left))));
            }
            properties.push(("dynamic", Value::Bool(address.expires.is_some())));
            properties.push(("disabled", Value::Bool(false)));
            if !comment.is_empty() {
                properties.push(("comment", Value::text(comment)));
            }
            Item::new(*id, properties)
        };
        present.map(item).collect()
    }

    pub(super) fn add_address(&mut self, arguments: &Arguments) -> Result<ItemId, Failure> {
        let list = arguments.required("list")?.to_owned();
        let address = network(arguments.required("address")?).ok_or_else(|| Failure::invalid("address"))?;
        if self.listed().iter().any(|other| (&other.list, &other.address) == (&list, &address)) {
            return Err(Failure::new("failure: already have such entry"));
        }
        let comment = arguments.text("comment").unwrap_or_default().to_owned();
        let expires = arguments.text("timeout").and_then(time::read).map(|time| Instant::now() + time);
        let listed = ListedAddress { list, address, comment };
        let id = self.number();
        self.addresses.insert(id, Address { listed, created: SystemTime::now(), expires });
        Ok(id)
    }

    pub(super) fn set_address(&mut self, id: ItemId, arguments: &Arguments) -> Result<(), Failure> {
        let known = self.addresses.get_mut(&id).ok_or_else(Failure::no_such_item)?;
        if let Some(comment) = arguments.text("comment") {
            comment.clone_into(&mut known.listed.comment);
        }
        if let Some(timeout) = arguments.text("timeout") {
            known.expires = time::read(timeout).map(|time| Instant::now() + time);
        }
        Ok(())
    }

    pub(super) fn remove_address(&mut self, id: ItemId) -> Result<(), Failure> {
        self.addresses.remove(&id).map(drop).ok_or_else(Failure::no_such_item)
    }

    pub(super) fn rule_items(&self) -> Vec<Item> {
        let item = |(id, rule): (&ItemId, &Rule)| {
            let set = |name: &'static str| Some((name, Value::text(rule.settings.get(name)?)));
            let mut properties: Vec<_> = RULE.into_iter().filter_map(set).collect();
            properties.push(("disabled", Value::Bool(rule.disabled)));
            properties.push(("invalid", Value::Bool(false)));
            properties.push(("dynamic", Value::Bool(false)));
            Item::new(*id, properties)
        };
        self.rules.iter().map(item).collect()
    }

    pub(super) fn add_rule(&mut self, arguments: &Arguments) -> Result<ItemId, Failure> {
        arguments.required("chain")?;
        let mut rule = Rule { settings: BTreeMap::from([("action", "accept".to_owned())]), disabled: false };
        rule.apply(arguments);
        let id = self.number();
        self.rules.insert(id, rule);
        Ok(id)
    }

    pub(super) fn set_rule(&mut self, id: ItemId, arguments: &Arguments) -> Result<(), Failure> {
        self.rules.get_mut(&id).ok_or_else(Failure::no_such_item)?.apply(arguments);
        Ok(())
    }

    pub(super) fn remove_rule(&mut self, id: ItemId) -> Result<(), Failure> {
        self.rules.remove(&id).map(drop).ok_or_else(Failure::no_such_item)
    }
}

impl Rule {
    fn apply(&mut self, arguments: &Arguments) {
        for name in RULE {
            match arguments.value(name) {
                None => {}
                Some(value) if value.length() == 0 => drop(self.settings.remove(name)),
                Some(value) => drop(self.settings.insert(name, value.to_string())),
            }
        }
        self.disabled = arguments.yes("disabled").unwrap_or(self.disabled);
    }
}

/// An address, or a network as `address/bits`; a network of one address is that address.
fn network(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Some(address.to_string()),
        Some(Ok(bits)) if bits == most => Some(address.to_string()),
        Some(Ok(bits)) if bits < most => Some(format!("{address}/{bits}")),
        Some(_) => None,
    }
}

pub(super) fn connection_items(connections: &[Connection]) -> Vec<Item> {
    let end = |socket: SocketAddr| Value::text(socket.to_string());
    let item = |(number, connection): (u64, &Connection)| {
        let properties = vec![
            ("protocol", Value::text("tcp")),
            ("src-address", end(connection.source)),
            ("dst-address", end(connection.destination)),
            ("reply-src-address", end(connection.destination)),
            ("reply-dst-address", end(connection.source)),
            ("tcp-state", Value::text("established")),
            ("timeout", Value::text(time::shown(Duration::from_hours(24)))),
        ];
        Item::new(ItemId(number), properties)
    };
    (1..).zip(connections).map(item).collect()
}
