//! Who holds a volume, and who may.
//!
//! [`decide`] is pure and total: it knows the rules, and neither clock nor network. [`store`] keeps the record between
//! calls, and [`facts`] are what Kubernetes says. The verbs gather what `decide` needs and carry out what it says.

pub mod decide;
pub mod facts;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod herald;
pub mod record;
pub mod standalone;
pub mod store;

pub use decide::{Claim, Fence, Refusal, Testimony};
pub use facts::Authority;
pub use herald::Herald;
pub use record::{Attachment, Record, Rights, Shape};
pub use standalone::Standalone;
pub use store::Store;

/// Everything beside arrays and nodes that attachments rest on: where records are, who decides, and who tells people.
pub trait Ledger: Store + Authority + Herald {}

impl<L: Store + Authority + Herald> Ledger for L {}
