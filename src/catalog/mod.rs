//! Floor 2: what tables look like: read from the catalogs, compared, printed as DDL.

pub mod table_def;

pub use table_def::*;
