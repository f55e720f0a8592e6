//! Source tables as the change stream describes them.

use crate::model::name::TableName;

/// PostgreSQL's object identifier.
pub type Oid = u32;

/// How the source identifies the old row of an update or delete (`pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// `d`: the primary key, or nothing where there is none.
    Default,
    /// `n`: nothing; updates and deletes cannot be published.
    Nothing,
    /// `f`: the whole old row.
    Full,
    /// `i`: the columns of a chosen unique index.
    Index,
}

impl ReplicaIdentity {
    /// From the catalog's letter; `None` for a letter PostgreSQL does not use.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return None,
        })
    }
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelationColumn {
    /// Name as in the catalogs.
    pub name: String,
    /// Type on the source.
    pub type_oid: Oid,
    /// Type modifier, -1 for none.
    pub type_modifier: i32,
    /// Part of the replica identity (every column with FULL).
    pub in_identity: bool,
}

/// A source table as the stream described it at one moment; immutable, shared by `Arc`.
/// A new description that is equal is no change of shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relation {
    /// `pg_class.oid` on the source.
    pub oid: Oid,
    /// Name at that moment.
    pub name: TableName,
    /// How old rows are identified.
    pub identity: ReplicaIdentity,
    /// The published columns in order; generated columns are left out by the server.
    pub columns: Vec<RelationColumn>,
}

impl Relation {
    /// Index of the column called `name`.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}
