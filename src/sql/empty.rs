//! TRUNCATE that a foreign key of a table beside it does not stop. Pure.

use crate::model::quote_literal;

/// The statement that empties `tables` (quoted names).
///
/// The server refuses to truncate a table that a foreign key of a table outside the list refers to, whatever
/// `session_replication_role` is; the source could do it, because there the other table was truncated too or has no
/// such key. Then the rows are deleted. `set_replica_role`: the session's triggers and foreign keys are awake and must
/// rest meanwhile, a cascade would take rows of other tables along.
pub fn empty(tables: &[&str], restart_identity: bool, set_replica_role: bool) -> String {
    let restart = if restart_identity { " RESTART IDENTITY" } else { "" };
    let role = if set_replica_role { "SET LOCAL session_replication_role = replica; " } else { "" };
    let deletes: Vec<_> = tables.iter().map(|table| format!("DELETE FROM {table};")).collect();
    let (declare, restarts) = match restart_identity {
        true => ("DECLARE s regclass; ", restart_sequences(tables)),
        false => ("", String::new()),
    };
    let block = format!(
        "{declare}BEGIN TRUNCATE {}{restart}; EXCEPTION WHEN feature_not_supported THEN {role}{}{restarts} END",
        tables.join(", "),
        deletes.join(" ")
    );
    format!("DO {}", quote_literal(&block))
}

/// What RESTART IDENTITY does to the sequences that belong to columns of `tables`; undone by a rollback, as there.
fn restart_sequences(tables: &[&str]) -> String {
    let tables: Vec<_> = tables.iter().map(|t| format!("{}::regclass", quote_literal(t))).collect();
    format!(
        " FOR s IN SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S' \
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass \
         AND d.deptype IN ('a', 'i') AND d.refobjid = ANY (ARRAY[{}]) \
         LOOP EXECUTE pg_catalog.format('ALTER SEQUENCE %s RESTART', s); END LOOP;",
        tables.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::empty;

    #[test]
    fn rows_are_deleted_where_a_foreign_key_forbids_truncate() {
        assert_eq!(
            empty(&["public.a", "\"it's\""], false, false),
            "DO 'BEGIN TRUNCATE public.a, \"it''s\"; EXCEPTION WHEN feature_not_supported THEN \
             DELETE FROM public.a; DELETE FROM \"it''s\"; END'"
        );
        assert!(empty(&["\"it's\""], true, false).contains("ARRAY[''\"it''''s\"''::regclass]"));
        assert!(
            empty(&["t"], false, true).contains("THEN SET LOCAL session_replication_role = replica; DELETE")
        );
    }
}
