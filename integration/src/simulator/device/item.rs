//! An item of a menu as commands see it: an id and properties.

use crate::simulator::script::{ItemId, Value};

/// An item at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// Its number.
    pub id: ItemId,
    properties: Vec<(&'static str, Value)>,
}

impl Item {
    /// An item with its properties in the order in which they are shown.
    pub(crate) fn new(id: ItemId, properties: Vec<(&'static str, Value)>) -> Self {
        Self { id, properties }
    }

    /// A property; `.id` is one of every item.
    pub(crate) fn property(&self, name: &str) -> Option<Value> {
        if name == ".id" {
            return Some(Value::Id(self.id));
        }
        self.properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// The properties in their order.
    pub(crate) fn properties(&self) -> &[(&'static str, Value)] {
        &self.properties
    }

    /// Whether commands may name the item so instead of giving its id.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let own = self.property("slot").or_else(|| self.property("name"));
        own.is_some_and(|own| own.to_string() == name)
    }

    /// Forgets all properties but these.
    pub(crate) fn keep_only(&mut self, names: &[&str]) {
        self.properties.retain(|(name, _)| names.contains(name));
    }

    /// The map that `as-value` gives.
    pub(crate) fn as_value(&self) -> Value {
        let own = self.properties.iter().map(|(name, value)| (Some((*name).to_owned()), value.clone()));
        Value::Array(std::iter::once((Some(".id".to_owned()), Value::Id(self.id))).chain(own).collect())
    }
}
