//! Variables: those of each block, those of the device, and the wall around a function.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::failure::Failure;
use super::value::Value;

/// The device's variables, which outlast scripts and are seen by all.
#[derive(Debug, Default)]
pub(crate) struct Globals(Mutex<HashMap<String, Value>>);

impl Globals {
    /// Forgets all, as a reboot does.
    pub(crate) fn forget(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a script knows at one of its statements.
pub(super) struct Scopes<'run> {
    globals: &'run Globals,
    /// From the outermost block to the innermost.
    blocks: Vec<HashMap<String, Variable>>,
}

enum Variable {
    Local(Value),
    /// Declared by `:global`: the value is the device's.
    Global,
}

impl<'run> Scopes<'run> {
    pub(super) fn new(globals: &'run Globals) -> Self {
        Self { globals, blocks: Vec::new() }
    }

    /// Enters a block that begins with these variables.
    pub(super) fn enter(&mut self, variables: impl IntoIterator<Item = (String, Value)>) {
        let local = |(name, value)| (name, Variable::Local(value));
        self.blocks.push(variables.into_iter().map(local).collect());
    }

    pub(super) fn leave(&mut self) {
        self.blocks.pop();
    }

    /// Enters a function that knows only its arguments; returns what is outside, to be restored after it.
    pub(super) fn wall_off(&mut self, arguments: Vec<(String, Value)>) -> Outside {
        let outside = Outside(std::mem::take(&mut self.blocks));
        self.enter(arguments);
        outside
    }

    pub(super) fn restore(&mut self, outside: Outside) {
        self.blocks = outside.0;
    }

    /// `:local`
    pub(super) fn declare(&mut self, name: &str, value: Value) {
        self.insert(name, Variable::Local(value));
    }

    /// `:global`; without a value it keeps the one it has.
    pub(super) fn declare_global(&mut self, name: &str, value: Option<Value>) {
        let mut globals = self.globals.all();
        match value {
            Some(value) => drop(globals.insert(name.to_owned(), value)),
            None => drop(globals.entry(name.to_owned()).or_insert(Value::Nothing)),
        }
        drop(globals);
        self.insert(name, Variable::Global);
    }

    fn insert(&mut self, name: &str, variable: Variable) {
        if let Some(block) = self.blocks.last_mut() {
            block.insert(name.to_owned(), variable);
        }
    }

    /// `:set`
    pub(super) fn set(&mut self, name: &str, value: Value) -> Result<(), Failure> {
        let declared = self.blocks.iter_mut().rev().find_map(|block| block.get_mut(name));
        match declared.ok_or_else(|| Failure::new(format!("variable {name} not defined")))? {
            Variable::Local(local) => *local = value,
            Variable::Global => drop(self.globals.all().insert(name.to_owned(), value)),
        }
        Ok(())
    }

    /// A variable's value; one that nobody declared here has none.
    pub(super) fn read(&self, name: &str) -> Value {
        match self.blocks.iter().rev().find_map(|block| block.get(name)) {
            Some(Variable::Local(value)) => value.clone(),
            Some(Variable::Global) => self.globals.all().get(name).cloned().unwrap_or(Value::Nothing),
            None => Value::Nothing,
        }
    }
}

/// The blocks around a function's call.
pub(super) struct Outside(Vec<HashMap<String, Variable>>);
