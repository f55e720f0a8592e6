//! Floor 2: what tables look like: read from the catalogs, compared, printed as DDL.

pub mod ddl;
pub mod error;
pub mod read;
pub mod table_def;
pub mod type_def;

pub use error::{CatalogError, ServerError};
pub use read::{list_tables, own_tables_readable, read_table, read_tables, read_types, server_version_num};
pub use table_def::*;
pub use type_def::{TypeDef, TypeKind, TypeMap};
