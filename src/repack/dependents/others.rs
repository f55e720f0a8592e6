//! The sweep: everything that depends on the table or on a part of it, whatever it is. What no kind claims is refused by name. Pure.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::depend::{depending, exchanged};

/// $1 the table's oid. Parts (of the table, and of the materialized views that are made again with it) are what a repack makes again or moves with the table; the table's own shadow and its old
/// self, whose defaults use the same owned sequences, are left out.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", heaps AS (SELECT c.oid, c.reltoastrelid AS toast, c.reltype FROM exchanged e JOIN pg_class c ON c.oid = e.oid), \
     parts (classid, objid) AS ( \
       SELECT 'pg_class'::regclass, oid FROM heaps \
       UNION SELECT 'pg_class'::regclass, toast FROM heaps WHERE toast <> 0 \
       UNION SELECT 'pg_type'::regclass, unnest(ARRAY[t.oid, t.typarray]) FROM heaps JOIN pg_type t ON t.oid = heaps.reltype \
       UNION SELECT 'pg_class'::regclass, i.indexrelid FROM heaps, LATERAL (SELECT indexrelid FROM pg_index \
         WHERE indrelid IN (heaps.oid, heaps.toast) OFFSET 0) i \
       UNION SELECT 'pg_statistic_ext'::regclass, s.oid FROM heaps JOIN pg_statistic_ext s ON s.stxrelid = heaps.oid \
       UNION SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = $1 \
       UNION SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = $1 \
       UNION SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = $1 \
       UNION SELECT 'pg_trigger'::regclass, t.oid FROM pg_constraint c, LATERAL (SELECT oid FROM pg_trigger \
         WHERE tgconstraint = c.oid AND tgisinternal OFFSET 0) t WHERE c.conrelid = $1 \
       UNION SELECT 'pg_class'::regclass, s.oid FROM (SELECT q.objid FROM pg_depend q WHERE q.refclassid = 'pg_class'::regclass AND q.refobjid = $1 \
           AND q.refobjsubid > 0 AND q.classid = 'pg_class'::regclass AND q.deptype IN ('a', 'i') OFFSET 0) q \
         JOIN pg_class s ON s.oid = q.objid AND s.relkind = 'S'), \
     found AS ( \
       SELECT DISTINCT d.classid, d.objid, p.classid AS part_class, p.objid AS part_oid FROM parts p, \
         LATERAL (SELECT d.classid, d.objid FROM pg_depend d WHERE d.refclassid = p.classid AND d.refobjid = p.objid OFFSET 0) d \
       WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM parts)), \
     placed AS MATERIALIZED (SELECT f.*, CASE f.classid \
           WHEN 'pg_class'::regclass THEN f.objid \
           WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = f.objid) \
           WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = f.objid) \
           WHEN 'pg_constraint'::regclass THEN (SELECT nullif(conrelid, 0) FROM pg_constraint WHERE oid = f.objid) \
           WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = f.objid) \
           WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = f.objid) END AS relation, \
         CASE f.classid WHEN 'pg_rewrite'::regclass THEN (SELECT rulename FROM pg_rewrite WHERE oid = f.objid) END AS rulename, \
         CASE f.classid WHEN 'pg_publication_rel'::regclass THEN (SELECT b.pubname FROM pg_publication_rel m \
           JOIN pg_publication b ON b.oid = m.prpubid WHERE m.oid = f.objid) END AS pubname \
       FROM found f) \
     SELECT p.classid::regclass::text AS class, p.objid::int8 AS oid, p.part_class::regclass::text AS part_class, \
       p.part_oid::int8 AS part_oid, pg_describe_object(p.part_class, p.part_oid, 0) AS part, \
       pg_describe_object(p.classid, p.objid, 0) AS description, p.relation::int8 AS relation_oid, \
       r.relkind::text AS relation_kind, CASE WHEN r.oid IS NOT NULL THEN format('%I.%I', n.nspname, r.relname) END AS relation, p.rulename AS rule, \
       p.relation IS NOT DISTINCT FROM $1 AS own, p.pubname AS publication \
     FROM placed p LEFT JOIN pg_class r ON r.oid = p.relation LEFT JOIN pg_namespace n ON n.oid = r.relnamespace \
     WHERE r.oid IS NULL OR r.oid = $1 OR n.nspname NOT IN ('repcloud_new', 'repcloud_old') \
       OR r.relname <> (SELECT relname FROM pg_class WHERE oid = $1) \
     ORDER BY 1, pg_describe_object(p.classid, p.objid, 0), 3, 5"
);

/// One object that depends on the table or on a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependent {
    /// Its catalog: `pg_rewrite`, `pg_proc` …
    pub class: String,
    /// Its oid there.
    pub oid: u32,
    /// The catalog of the part of the table it depends on.
    pub part_class: String,
    /// The part's oid.
    pub part_oid: u32,
    /// The part, in the server's words.
    pub part: String,
    /// The object, in the server's words.
    pub description: String,
    /// The relation it belongs to or is.
    pub relation_oid: Option<u32>,
    /// `pg_class.relkind` of that relation.
    pub relation_kind: Option<String>,
    /// That relation.
    pub relation: Option<String>,
    /// The rule's name, of a rule.
    pub rule: Option<String>,
    /// It belongs to the table itself.
    pub own: bool,
    /// The publication, of a membership.
    pub publication: Option<String>,
}

impl Dependent {
    /// Why it stands in the way, and the way out.
    pub(super) fn refusal(&self) -> Refusal {
        const AGAIN: &str = "drop it and make it again after the repack";
        let relation = self.relation.as_deref().unwrap_or_default();
        let kind = match self.relation_kind.as_deref() {
            Some("v") => "view",
            Some("m") => "materialized view",
            Some("c") => "type",
            _ => "table",
        };
        let object = format!("{kind} {relation}");
        let described = self.description.clone();
        let by_type = self.part_class == "pg_type";
        match self.class.as_str() {
            "pg_rewrite" if by_type => {
                let reason = "it uses the table's row type, which is another one afterwards";
                Refusal::new(object, reason).remedy(AGAIN)
            }
            "pg_proc" if by_type => {
                let reason =
                    "its signature or body uses the table's row type, which is another one afterwards";
                Refusal::new(described, reason).remedy(AGAIN)
            }
            "pg_class" if by_type && matches!(kind, "view" | "materialized view") => {
                let reason = "a column of it has the table's row type, which is another one afterwards";
                Refusal::new(object, reason)
                    .remedy(format!("name the columns instead of the whole row, or {AGAIN}"))
            }
            "pg_class" if by_type => {
                let reason = "a column of it has the table's row type, so it would have to be rewritten while it is locked";
                Refusal::new(object, reason)
                    .remedy("give the column a type of its own (CREATE TYPE … AS), or jsonb")
            }
            "pg_class" if matches!(self.relation_kind.as_deref(), Some("r" | "p" | "f")) => {
                Refusal::new(object, "it inherits from the table; not supported yet")
            }
            _ => Refusal::new(described, format!("it depends on {}; not supported yet", self.part))
                .remedy(AGAIN),
        }
    }
}
