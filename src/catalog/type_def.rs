//! Types that columns use, with all they are built from. Pure data; `read.rs` fills it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Oid, quote_ident};

/// One type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDef {
    /// `pg_type.oid`.
    pub oid: Oid,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// The type without modifier as a cast writes it (`bpchar`, `"bit"`, `public.mood`).
    pub sql: String,
    /// The extension it belongs to.
    pub extension: Option<String>,
    /// It has a default btree operator class itself, or is relabelled to a type that has one.
    pub has_btree: bool,
    /// What it is made of.
    pub kind: TypeKind,
}

/// What a type is made of. All SQL is qualified and quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeKind {
    /// A base or pseudo type: only the server or an extension can make it.
    Base,
    /// Array of a type.
    Array(Oid),
    /// Enum with its labels in order.
    Enum(Vec<String>),
    /// Domain.
    Domain {
        /// The type it is over.
        base: Oid,
        /// That type with modifier.
        base_sql: String,
        /// NOT NULL.
        not_null: bool,
        /// Collation when it is not the base type's.
        collation: Option<String>,
        /// `CONSTRAINT name CHECK (…)`, each.
        checks: Vec<String>,
    },
    /// Composite type, or a table's row type.
    Composite {
        /// The fields' types.
        field_types: Vec<Oid>,
        /// `name type [COLLATE …]`, each.
        fields: Vec<String>,
        /// It is the row type of a table or view: made with that, not alone.
        of_relation: bool,
    },
    /// Range.
    Range {
        /// Subtype.
        subtype: Oid,
        /// The options of CREATE TYPE … AS RANGE, each `name = value`.
        options: Vec<String>,
    },
    /// Multirange of a range; made together with it.
    Multirange(Oid),
}

impl TypeDef {
    /// Schema-qualified name as SQL.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }

    /// The server has it by itself.
    pub fn built_in(&self) -> bool {
        matches!(self.schema.as_str(), "pg_catalog" | "information_schema")
    }

    /// Types this one is built from.
    pub fn parts(&self) -> Vec<Oid> {
        match &self.kind {
            TypeKind::Base | TypeKind::Enum(_) => Vec::new(),
            TypeKind::Array(oid) | TypeKind::Multirange(oid) => vec![*oid],
            TypeKind::Domain { base, .. } => vec![*base],
            TypeKind::Range { subtype, .. } => vec![*subtype],
            TypeKind::Composite { field_types, .. } => field_types.clone(),
        }
    }
}

/// Types by oid, closed under [`TypeDef::parts`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeMap(pub BTreeMap<Oid, TypeDef>);

impl TypeMap {
    /// One type.
    pub fn get(&self, oid: Oid) -> Option<&TypeDef> {
        self.0.get(&oid)
    }

    /// The type under a domain, however deep; the type itself for others.
    pub fn base(&self, oid: Oid) -> Option<&TypeDef> {
        let mut found = self.get(oid)?;
        // A chain of domains cannot be longer than there are types.
        for _ in 0..self.0.len() {
            match &found.kind {
                TypeKind::Domain { base, .. } => found = self.get(*base)?,
                _ => break,
            }
        }
        Some(found)
    }

    /// True when values have a default btree equality. The server answers for base types; a container has it
    /// when its parts have it, although its (polymorphic) operator class always exists.
    pub fn has_equality(&self, oid: Oid) -> bool {
        self.equality_within(oid, &mut BTreeSet::new())
    }

    fn equality_within(&self, oid: Oid, path: &mut BTreeSet<Oid>) -> bool {
        // No type contains itself, but a damaged catalog must not make us recurse for ever.
        if !path.insert(oid) {
            return false;
        }
        let answer = self.get(oid).is_some_and(|t| match &t.kind {
            _ if t.has_btree => true,
            TypeKind::Base => false,
            // A range's subtype has a btree operator class by definition.
            TypeKind::Enum(_) | TypeKind::Range { .. } | TypeKind::Multirange(_) => true,
            TypeKind::Array(_) | TypeKind::Domain { .. } | TypeKind::Composite { .. } => {
                t.parts().into_iter().all(|part| self.equality_within(part, path))
            }
        });
        path.remove(&oid);
        answer
    }

    /// The given types and all they are built from, each after its parts.
    pub fn in_creation_order(&self, wanted: &[Oid]) -> Vec<&TypeDef> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for oid in wanted {
            self.visit(*oid, &mut seen, &mut order);
        }
        order
    }

    fn visit<'a>(&'a self, oid: Oid, seen: &mut BTreeSet<Oid>, order: &mut Vec<&'a TypeDef>) {
        if !seen.insert(oid) {
            return;
        }
        if let Some(found) = self.get(oid) {
            for part in found.parts() {
                self.visit(part, seen, order);
            }
            order.push(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_def(oid: Oid, has_btree: bool, kind: TypeKind) -> (Oid, TypeDef) {
        let name = format!("t{oid}");
        let sql = format!("s.{name}");
        (oid, TypeDef { oid, schema: "s".into(), name, sql, extension: None, has_btree, kind })
    }

    fn composite(field_types: Vec<Oid>) -> TypeKind {
        TypeKind::Composite { field_types, fields: vec![], of_relation: false }
    }

    fn domain(base: Oid) -> TypeKind {
        TypeKind::Domain { base, base_sql: String::new(), not_null: false, collation: None, checks: vec![] }
    }

    #[test]
    fn a_container_has_equality_when_all_its_parts_have() {
        let types = TypeMap(BTreeMap::from([
            type_def(1, true, TypeKind::Base),
            type_def(2, false, TypeKind::Base),
            type_def(3, false, TypeKind::Array(1)),
            type_def(4, false, TypeKind::Array(2)),
            type_def(5, false, composite(vec![1, 3])),
            type_def(6, false, composite(vec![1, 4])),
            type_def(7, false, domain(6)),
            type_def(8, false, domain(9)),
            type_def(9, false, domain(1)),
            type_def(10, false, composite(vec![10])),
        ]));
        let with: Vec<Oid> = types.0.keys().copied().filter(|oid| types.has_equality(*oid)).collect();
        assert_eq!(with, [1, 3, 5, 8, 9]);
        assert!(!types.has_equality(99));
        assert_eq!(types.base(8).map(|t| t.oid), Some(1));
    }

    #[test]
    fn parts_come_before_what_is_built_from_them() {
        let types = TypeMap(BTreeMap::from([
            type_def(1, true, composite(vec![3, 2])),
            type_def(2, true, TypeKind::Array(4)),
            type_def(3, true, domain(4)),
            type_def(4, true, TypeKind::Enum(vec![])),
        ]));
        let order: Vec<Oid> = types.in_creation_order(&[1, 3]).iter().map(|t| t.oid).collect();
        assert_eq!(order, [4, 3, 2, 1]);
    }
}
