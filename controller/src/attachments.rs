//! Who holds a volume, and who may.
//!
//! [`decide`] is pure and total: it knows the rules, and neither clock nor network. [`store`] keeps the record between
//! calls, and [`facts`] are what Kubernetes says. The verbs gather what `decide` needs and carry out what it says.

pub mod decide;
pub mod facts;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod gauges;
pub mod herald;
#[cfg(test)]
mod model;
pub mod proof;
pub mod reconcile;
pub mod record;
mod refusal;
pub mod standalone;
pub mod store;

pub use decide::{Claim, Fence, Refusal, Second, Testimony};
pub use facts::Authority;
pub use herald::Herald;
pub use record::{Attachment, Record, Rights, Shape};
pub use standalone::Standalone;
pub use store::Store;

/// With whom it is settled who holds a volume.
#[derive(Debug)]
pub struct Parties<'a, A, L, W> {
    /// The volume's array.
    pub array: &'a A,
    /// How it keeps others out.
    pub fence: Fence,
    /// The records, who decides, and who tells people.
    pub ledger: &'a L,
    /// Who can say what a node has.
    pub nodes: &'a W,
}

/// Everything beside arrays and nodes that attachments rest on: where records are, who decides, and who tells people.
pub trait Ledger: Store + Authority + Herald {}

impl<L: Store + Authority + Herald> Ledger for L {}
