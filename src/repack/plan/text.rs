//! Small tools for SQL text that the server wrote. Pure.

use crate::model::{quote_ident, quote_literal};

/// `COMMENT ON` an object, nothing when there is none.
pub(crate) fn comment(object: &str, text: Option<&str>) -> Option<String> {
    text.map(|text| format!("COMMENT ON {object} IS {}", quote_literal(text)))
}

/// `name='value'` for each `name=value` of a reloptions array, with a prefix (`toast.`) before the name.
pub(crate) fn options(prefix: &str, reloptions: &[String]) -> Vec<String> {
    reloptions
        .iter()
        .map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, "true"));
            format!("{prefix}{}={}", quote_ident(name), quote_literal(value))
        })
        .collect()
}

/// `definition` with `to` in the place of `from`, which must stand right after the first free-standing `keyword`; `None` when it does
/// not. Names and strings in quotes are skipped, so nothing in them is taken for the keyword.
pub(crate) fn exchange_after(definition: &str, keyword: &str, from: &str, to: &str) -> Option<String> {
    let at = word_at_top(definition, &[keyword])?;
    let start = at + keyword.len();
    let rest = definition.get(start..)?;
    let spaces = rest.len() - rest.trim_start().len();
    let after = rest.trim_start().strip_prefix(from)?;
    if after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"' | '.')) {
        return None;
    }
    Some(format!("{}{}{to}{after}", definition.get(..start)?, rest.get(..spaces)?))
}

/// `text` with `to` wherever the relation `from` stands; not in strings, and not where a function or a column has its name.
pub(crate) fn exchange_name(text: &str, from: &str, to: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(letter) = rest.chars().next() {
        let free = !is_word(before) && before != '.';
        if let Some(after) = rest
            .strip_prefix(from)
            .filter(|after| free && !after.starts_with(|c: char| is_word(c) || matches!(c, '.' | '(')))
        {
            result.push_str(to);
            (before, rest) = (' ', after);
            continue;
        }
        // A string or a quoted name is taken over as it is.
        let length = match letter {
            '"' | '\'' => rest.get(1..).and_then(|tail| tail.find(letter)).map_or(rest.len(), |at| at + 2),
            _ => letter.len_utf8(),
        };
        let Some((taken, after)) = rest.split_at_checked(length) else { break };
        result.push_str(taken);
        (before, rest) = (taken.chars().next_back().unwrap_or(' '), after);
    }
    result
}

/// `definition` with `clause` before the first of `keywords` that stands outside of quotes and parentheses, or at the end.
pub(crate) fn insert_before(definition: &str, keywords: &[&str], clause: &str) -> String {
    match word_at_top(definition, keywords).and_then(|at| definition.split_at_checked(at)) {
        Some((before, after)) => format!("{before}{clause} {after}"),
        None => format!("{definition} {clause}"),
    }
}

/// The place of the first of `words` outside of quotes and parentheses. Keywords are upper case in what the server prints, and
/// names that are would be in quotes.
fn word_at_top(text: &str, words: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 && !is_word(before) => {
                let rest = text.get(at..)?;
                let found = words
                    .iter()
                    .any(|word| rest.strip_prefix(word).is_some_and(|after| !after.starts_with(is_word)));
                if found {
                    return Some(at);
                }
            }
            _ => {}
        }
        before = letter;
    }
    None
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '$' | '"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_after_the_keyword_is_exchanged() {
        let moved = |text: &str| exchange_after(text, "ON", "public.t", "repcloud.t");
        assert_eq!(
            moved("CREATE INDEX \"x ON public.t \" ON public.t USING btree (a)").as_deref(),
            Some("CREATE INDEX \"x ON public.t \" ON repcloud.t USING btree (a)")
        );
        assert_eq!(
            moved("CREATE TRIGGER g BEFORE UPDATE OF \"a\"\" ON b\" ON public.t FOR EACH ROW").as_deref(),
            Some("CREATE TRIGGER g BEFORE UPDATE OF \"a\"\" ON b\" ON repcloud.t FOR EACH ROW")
        );
        assert_eq!(moved("CREATE INDEX i ON public.t2 USING btree (a)"), None);
        assert_eq!(moved("CREATE INDEX i ON ONLY public.t USING btree (a)"), None);
    }

    #[test]
    fn a_relation_is_exchanged_wherever_it_stands_and_nothing_else() {
        let moved = |text: &str| exchange_name(text, "public.\"T\"", "n.t");
        assert_eq!(
            moved("SELECT 'public.\"T\"' FROM (public.\"T\" JOIN public.\"T\" x ON true), a.public.\"T\""),
            "SELECT 'public.\"T\"' FROM (n.t JOIN n.t x ON true), a.public.\"T\""
        );
        assert_eq!(
            moved("public.\"T\"(1), public.\"T\".a, \"public.\"T\"\""),
            "public.\"T\"(1), public.\"T\".a, \"public.\"T\"\""
        );
        assert_eq!(exchange_name("FROM public.t2, public.t;", "public.t", "n.t"), "FROM public.t2, n.t;");
    }

    #[test]
    fn a_clause_goes_before_the_predicate() {
        assert_eq!(
            insert_before(
                "CREATE INDEX i ON t USING btree (a) WHERE (b = ' WHERE ')",
                &["WHERE"],
                "TABLESPACE x"
            ),
            "CREATE INDEX i ON t USING btree (a) TABLESPACE x WHERE (b = ' WHERE ')"
        );
        assert_eq!(
            insert_before(
                "EXCLUDE USING gist ((a -> 'x' WHERE) WITH &&)",
                &["WHERE"],
                "USING INDEX TABLESPACE x"
            ),
            "EXCLUDE USING gist ((a -> 'x' WHERE) WITH &&) USING INDEX TABLESPACE x"
        );
    }

    #[test]
    fn options_are_quoted() {
        assert_eq!(
            options("toast.", &["autovacuum_enabled=false".into()]),
            ["toast.autovacuum_enabled='false'"]
        );
    }
}
