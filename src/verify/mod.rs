//! Floor 3: compares a source table with its target table while a stream may be running between them.
//!
//! Only counts and digests travel until a part differs; then the digests of its rows; never a row. What differs at first
//! sight is only a suspect: the two sides are read at different moments, and the target lags. A suspect counts once it has
//! been looked at again after the stream has passed, with a source that stood still (`judge`).
//!
//! - [`spec`]: what to compare, what came out;
//! - `layout` (pure): how two tables can be compared; `sql` (pure): the statements; `chunk`, `digest`, `judge` (pure): decisions;
//! - `side`: one table on one server; `ordered` and `hashed`: the two ways through a table; `recheck`: the second look;
//! - [`run`]: [`verify`] and [`count`].

mod chunk;
mod digest;
pub mod error;
mod hashed;
mod judge;
mod layout;
mod ordered;
mod recheck;
pub mod run;
mod side;
pub mod spec;
mod sql;

pub use error::{Place, VerifyError};
pub use run::{count, verify};
pub use spec::{Kind, Progress, Sample, VerifyOptions, VerifyOutcome, VerifySpec};
