//! The sweep: everything that depends on the table or on a part of it, whatever it is. What no kind claims is refused by name. Pure.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::matviews::exchanged;

/// $1 the table's oid. Parts (of the table, and of the materialized views that are made again with it) are what a repack makes again or moves with the table; the table's own shadow and its old
/// self, whose defaults use the same owned sequences, are left out.
pub(super) const QUERY: &str = concat!(
    exchanged!(),
    ", own AS (SELECT t.oid AS composite, t.typarray AS list FROM pg_type t \
       WHERE t.typrelid IN (SELECT oid FROM exchanged)), \
     parts (classid, objid) AS ( \
       SELECT 'pg_class'::regclass, oid FROM exchanged \
       UNION SELECT 'pg_type'::regclass, composite FROM own UNION SELECT 'pg_type'::regclass, list FROM own \
       UNION SELECT 'pg_class'::regclass, reltoastrelid FROM pg_class WHERE oid IN (SELECT oid FROM exchanged) \
       UNION SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid IN (SELECT unnest(ARRAY[c.oid, nullif(c.reltoastrelid, 0)]) FROM exchanged e JOIN pg_class c ON c.oid = e.oid) \
       UNION SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = $1 \
       UNION SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = $1 \
       UNION SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = $1 OR tgisinternal AND tgconstraint IN \
         (SELECT oid FROM pg_constraint WHERE conrelid = $1) \
       UNION SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid IN (SELECT oid FROM exchanged) \
       UNION SELECT 'pg_class'::regclass, s.oid FROM pg_depend q JOIN pg_class s ON s.oid = q.objid AND s.relkind = 'S' \
         WHERE q.classid = 'pg_class'::regclass AND q.refclassid = 'pg_class'::regclass AND q.refobjid = $1 \
           AND q.refobjsubid > 0 AND q.deptype IN ('a', 'i')), \
     found AS ( \
       SELECT DISTINCT d.classid, d.objid, p.classid AS part_class, p.objid AS part_oid \
       FROM parts p JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid \
       WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM parts)), \
     placed AS (SELECT f.*, coalesce(w.ev_class, a.adrelid, nullif(c.conrelid, 0), t.tgrelid, o.polrelid, \
         CASE WHEN f.classid = 'pg_class'::regclass THEN f.objid END) AS relation, w.rulename, b.pubname \
       FROM found f \
       LEFT JOIN pg_rewrite w ON f.classid = 'pg_rewrite'::regclass AND w.oid = f.objid \
       LEFT JOIN pg_attrdef a ON f.classid = 'pg_attrdef'::regclass AND a.oid = f.objid \
       LEFT JOIN pg_constraint c ON f.classid = 'pg_constraint'::regclass AND c.oid = f.objid \
       LEFT JOIN pg_trigger t ON f.classid = 'pg_trigger'::regclass AND t.oid = f.objid \
       LEFT JOIN pg_policy o ON f.classid = 'pg_policy'::regclass AND o.oid = f.objid \
       LEFT JOIN pg_publication_rel m ON f.classid = 'pg_publication_rel'::regclass AND m.oid = f.objid \
       LEFT JOIN pg_publication b ON b.oid = m.prpubid) \
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
