//! Who holds a volume, and who may.
//!
//! [`decide`] is pure and total: it knows the rules, and neither clock nor network. [`store`] keeps the record between
//! calls. The verbs gather what `decide` needs and carry out what it says.

pub mod decide;
pub mod record;
pub mod store;

pub use decide::{Claim, Fence, Refusal, Testimony};
pub use record::{Attachment, Record, Rights, Shape};
