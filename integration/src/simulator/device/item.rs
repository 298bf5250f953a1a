//! An item of a menu as commands see it: an id and properties.

use super::Unset;
use crate::simulator::script::{ItemId, Value};

/// An item at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// Its number.
    pub id: ItemId,
    properties: Vec<(&'static str, Value)>,
    /// What is only told when asked for: by its name, or by `print stats`.
    counters: Vec<(&'static str, Value)>,
    unset: Unset,
}

impl Item {
    /// An item with its properties in the order in which they are shown.
    pub(crate) fn new(id: ItemId, properties: Vec<(&'static str, Value)>) -> Self {
        Self { id, properties, counters: Vec::new(), unset: Unset::Empty }
    }

    /// The same; scripts see properties without a value as `unset` says, people always see that they are empty.
    pub(crate) fn with_unset(self, unset: Unset) -> Self {
        Self { unset, ..self }
    }

    /// The same, with counters.
    pub(crate) fn with_counters(self, counters: Vec<(&'static str, Value)>) -> Self {
        Self { counters, ..self }
    }

    /// A property; `.id` is one of every item.
    pub(crate) fn property(&self, name: &str) -> Option<Value> {
        if name == ".id" {
            return Some(Value::Id(self.id));
        }
        let mut all = self.properties.iter().chain(&self.counters);
        let (_, value) = all.find(|(known, _)| *known == name)?;
        self.is_told(value).then(|| value.clone())
    }

    /// The properties in their order, for people.
    pub(crate) fn properties(&self) -> &[(&'static str, Value)] {
        &self.properties
    }

    /// Whether commands may name the item so instead of giving its id.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let own = self.property("slot").or_else(|| self.property("name"));
        own.is_some_and(|own| own.to_string() == name)
    }

    /// Counters are properties like others from now on.
    pub(crate) fn show_counters(&mut self) {
        self.properties.append(&mut self.counters);
    }

    /// Forgets all properties but these.
    pub(crate) fn keep_only(&mut self, names: &[&str]) {
        self.show_counters();
        self.properties.retain(|(name, _)| names.contains(name));
    }

    /// The map that `as-value` gives.
    pub(crate) fn as_value(&self) -> Value {
        let told = self.properties.iter().filter(|(_, value)| self.is_told(value));
        let own = told.map(|(name, value)| (Some((*name).to_owned()), value.clone()));
        Value::Array(std::iter::once((Some(".id".to_owned()), Value::Id(self.id))).chain(own).collect())
    }

    fn is_told(&self, value: &Value) -> bool {
        match self.unset {
            Unset::Empty => true,
            Unset::Absent => !matches!(value, Value::Text(_) | Value::Array(_)) || value.length() > 0,
        }
    }
}
