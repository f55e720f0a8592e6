//! TRUNCATE that a foreign key of a table beside it does not stop. Pure.

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
    let block = format!(
        "BEGIN TRUNCATE {}{restart}; EXCEPTION WHEN feature_not_supported THEN {role}{} END",
        tables.join(", "),
        deletes.join(" ")
    );
    format!("DO '{}'", block.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::empty;

    #[test]
    fn rows_are_deleted_where_a_foreign_key_forbids_truncate() {
        assert_eq!(
            empty(&["public.a", "\"it's\""], true, false),
            "DO 'BEGIN TRUNCATE public.a, \"it''s\" RESTART IDENTITY; EXCEPTION WHEN feature_not_supported THEN \
             DELETE FROM public.a; DELETE FROM \"it''s\"; END'"
        );
        assert!(
            empty(&["t"], false, true).contains("THEN SET LOCAL session_replication_role = replica; DELETE")
        );
    }
}
