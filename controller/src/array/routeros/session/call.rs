//! What a session is asked to run.

use std::sync::Arc;

/// One operation: a RouterOS function, and what it is called with.
///
/// A function sees its own arguments only. Whatever is different from one volume to the next is an argument, so that a line
/// that carries several calls of one operation carries its body once.
#[derive(Debug, Clone)]
pub(in crate::array::routeros) struct Call {
    /// What the function is called: letters only.
    pub(in crate::array::routeros) name: &'static str,
    /// Its statements, in one line.
    pub(in crate::array::routeros) body: Arc<str>,
    /// What it is called with, such as `volume="pvc-a" size=4096`, each value as script has it.
    pub(in crate::array::routeros) arguments: String,
    /// How many bytes it may print; what prints more is not believed.
    pub(in crate::array::routeros) answer_limit: usize,
    /// What it is about, the same for every call about that: they run one after the other. One that got no answer is repeated
    /// in a line of its own.
    pub(in crate::array::routeros) about: String,
}

#[cfg(any(test, feature = "fake"))]
impl Call {
    /// The line that this call alone is sent in.
    pub(in crate::array::routeros) fn line(&self) -> String {
        let mut batch = super::frame::Batch::default();
        batch.push(self);
        batch.text()
    }
}
