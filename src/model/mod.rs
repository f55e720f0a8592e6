//! Floor 0: the words of the house. Pure data, no I/O, no clock.

pub mod change;
pub mod event;
pub mod lsn;
pub mod name;
pub mod relation;
pub mod retry;
pub mod tuple;

pub use change::{Change, OldTuple, PgTimestamp, TxnBatch, TxnId, TxnSpan};
pub use event::{Events, JobEvent};
pub use lsn::Lsn;
pub use name::{TableName, TablePattern, quote_ident, quote_literal};
pub use relation::{Oid, Relation, RelationColumn, ReplicaIdentity};
pub use retry::RetryAdvice;
pub use tuple::{Tuple, Value};
