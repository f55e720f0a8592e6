//! Finds words in SQL that PostgreSQL printed itself (`pg_get_indexdef`, `pg_get_constraintdef`).

/// Byte offset of the first `word` that is outside quotes and parentheses.
///
/// The server doubles quotes and backslashes inside literals, so that a quote always ends or begins one, and it
/// prints neither comments nor dollar quotes.
pub(super) fn find_top_level(sql: &str, word: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<u8> = None;
    for (at, byte) in sql.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(' | b'[') => depth += 1,
            (None, b')' | b']') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 && sql.as_bytes()[at..].starts_with(word.as_bytes()) => return Some(at),
            _ => {}
        }
    }
    None
}

/// `sql` before the first top-level `word`, and from it on (empty when it is not there).
pub(super) fn split_top_level<'a>(sql: &'a str, word: &str) -> (&'a str, &'a str) {
    match find_top_level(sql, word) {
        Some(at) => sql.split_at(at),
        None => (sql, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_inside_quotes_and_parentheses_are_not_found() {
        let sql = r#"CREATE INDEX "a USING b""c WHERE" ON s."x WHERE " USING btree (f(' USING '), "WHERE") WHERE (a = ' WHERE ''x')"#;
        let (head, tail) = split_top_level(sql, " USING ");
        assert_eq!(head, r#"CREATE INDEX "a USING b""c WHERE" ON s."x WHERE ""#);
        let (body, predicate) = split_top_level(tail, " WHERE ");
        assert_eq!(body, r#" USING btree (f(' USING '), "WHERE")"#);
        assert_eq!(predicate, " WHERE (a = ' WHERE ''x')");
        assert_eq!(find_top_level("a (b", "b"), None);
        assert_eq!(split_top_level("ü)", " WHERE "), ("ü)", ""));
    }
}
