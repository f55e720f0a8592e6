//! How `pg_depend` is asked, so that the answer costs as much as there is to tell, however large the database. Pure.

/// SQL: `objid` of what depends on an object, one catalog after the other. By way of the index, whatever the planner thinks: with OFFSET 0
/// it cannot turn the question into a join, for which it read all dependencies of the database (50 ms at 6,000 tables, under the lock).
macro_rules! depending {
    ($class:literal, on $catalog:literal, $oid:literal) => {
        concat!(
            "LATERAL (SELECT DISTINCT d.objid FROM pg_depend d WHERE d.refclassid = '",
            $catalog,
            "'::regclass AND d.refobjid = ",
            $oid,
            " AND d.classid = '",
            $class,
            "'::regclass OFFSET 0)"
        )
    };
}
pub(super) use depending;

/// The beginning of a query: `exchanged` are the oids of the table ($1) and of the materialized views that are made again with it.
macro_rules! exchanged {
    () => {
        concat!(
            "WITH RECURSIVE exchanged(oid) AS (SELECT c.oid FROM pg_class c WHERE c.oid = $1 \
               UNION SELECT r.ev_class FROM exchanged e, ",
            depending!("pg_rewrite", on "pg_class", "e.oid"),
            " n JOIN pg_rewrite r ON r.oid = n.objid JOIN pg_class c ON c.oid = r.ev_class AND c.relkind = 'm')"
        )
    };
}
pub(super) use exchanged;

/// SQL: oids of what, of one catalog, names the table, a materialized view that is made again with it, a constraint of the table, or
/// its row type. To stand behind [`exchanged`].
macro_rules! naming {
    ($class:literal) => {
        concat!(
            "SELECT n.objid AS oid FROM exchanged e, ",
            depending!($class, on "pg_class", "e.oid"),
            " n UNION SELECT n.objid FROM pg_constraint c, ",
            depending!($class, on "pg_constraint", "c.oid"),
            " n WHERE c.conrelid = $1 UNION SELECT n.objid FROM pg_class c JOIN pg_type t ON t.oid = c.reltype, \
               unnest(ARRAY[t.oid, t.typarray]) AS y(oid), ",
            depending!($class, on "pg_type", "y.oid"),
            " n WHERE c.oid = $1"
        )
    };
}
pub(super) use naming;
