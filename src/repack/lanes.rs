//! How many sessions apply the changes of a table that is rebuilt: several where its rows can be told apart by the bytes of their keys
//! and no two rows of different keys can stand in each other's way.

mod read;

pub(crate) use read::read;

/// No more than these: the server that decodes, and the application, want to live too.
const MOST: usize = 4;

/// Types of which two values are equal if and only if their texts are, whatever a person renames. Not `numeric` (1.0 and 1.00), floats
/// (0 and -0), `interval`, `timetz`, `bpchar`, `citext`, enums.
const EQUAL_AS_TEXT: &[&str] = &[
    "bool",
    "bytea",
    "date",
    "int2",
    "int4",
    "int8",
    "oid",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "uuid",
    "varchar",
];

/// What decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LaneFacts {
    /// The columns by which rows are found; none: by all their values.
    pub(crate) key: Vec<KeyColumn>,
    /// Unique and exclusion indexes.
    pub(crate) exclusive: Vec<Exclusive>,
}

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    /// Of schema `pg_catalog`; empty for all others.
    pub(crate) type_name: String,
    /// Its collation takes different texts for different.
    pub(crate) deterministic: bool,
}

/// An index that keeps rows from standing beside each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exclusive {
    pub(crate) name: String,
    /// Of an exclusion constraint, or a key WITHOUT OVERLAPS.
    pub(crate) exclusion: bool,
    /// Its columns that it compares as the table does: by the type's own equality, with the column's collation.
    pub(crate) columns: Vec<String>,
}

/// How many, and why not several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) lanes: usize,
    /// Where the table is the reason that there is one.
    pub(crate) reason: Option<String>,
}

/// As many as `jobs`, four at most, or one.
pub(crate) fn decide(facts: &LaneFacts, jobs: usize) -> Decision {
    if jobs <= 1 {
        return Decision { lanes: 1, reason: None };
    }
    match why_one(facts) {
        None => Decision { lanes: jobs.min(MOST), reason: None },
        reason => Decision { lanes: 1, reason },
    }
}

fn why_one(facts: &LaneFacts) -> Option<String> {
    if facts.key.is_empty() {
        return Some("it has no key".to_owned());
    }
    let unequal =
        |column: &&KeyColumn| !column.deterministic || !EQUAL_AS_TEXT.contains(&column.type_name.as_str());
    if let Some(column) = facts.key.iter().find(unequal) {
        return Some(format!(
            "values of its key column \"{}\" may be equal though their texts differ",
            column.name
        ));
    }
    // An index that has the whole key among its columns knows no two rows of different keys as equal.
    let other = facts.exclusive.iter().find(|index| {
        index.exclusion || !facts.key.iter().all(|column| index.columns.contains(&column.name))
    })?;
    Some(format!("index \"{}\" keeps rows of different keys apart", other.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, type_name: &str) -> KeyColumn {
        KeyColumn { name: name.into(), type_name: type_name.into(), deterministic: true }
    }

    fn unique(name: &str, columns: &[&str]) -> Exclusive {
        Exclusive {
            name: name.into(),
            exclusion: false,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
        }
    }

    fn facts(key: Vec<KeyColumn>, exclusive: Vec<Exclusive>) -> LaneFacts {
        LaneFacts { key, exclusive }
    }

    #[test]
    fn a_table_with_nothing_but_a_plain_key_has_as_many_lanes_as_jobs() {
        for type_name in EQUAL_AS_TEXT {
            let plain = facts(vec![key("id", type_name)], vec![unique("t_pkey", &["id"])]);
            for (jobs, lanes) in [(0, 1), (1, 1), (2, 2), (4, 4), (5, 4), (64, 4)] {
                assert_eq!(
                    decide(&plain, jobs),
                    Decision { lanes, reason: None },
                    "{type_name}, {jobs} jobs"
                );
            }
        }
    }

    #[test]
    fn what_may_stand_in_the_way_of_other_rows_leaves_one_lane() {
        let pair = || vec![key("a", "int4"), key("b", "text")];
        let nondeterministic = KeyColumn { deterministic: false, ..key("b", "text") };
        let exclusion = Exclusive { exclusion: true, ..unique("t_excl", &["a", "b"]) };
        let pkey = || unique("t_pkey", &["a", "b"]);
        for (case, facts, word) in [
            ("no key", facts(vec![], vec![]), Some("no key")),
            ("numeric", facts(vec![key("n", "numeric")], vec![unique("p", &["n"])]), Some("\"n\"")),
            ("float", facts(vec![key("n", "float8")], vec![unique("p", &["n"])]), Some("\"n\"")),
            ("char(n)", facts(vec![key("n", "bpchar")], vec![unique("p", &["n"])]), Some("\"n\"")),
            (
                "citext, a domain, an enum",
                facts(vec![key("n", "")], vec![unique("p", &["n"])]),
                Some("\"n\""),
            ),
            ("a collation", facts(vec![key("a", "int4"), nondeterministic], vec![pkey()]), Some("\"b\"")),
            ("two columns", facts(pair(), vec![pkey()]), None),
            ("another unique index", facts(pair(), vec![pkey(), unique("u", &["c"])]), Some("\"u\"")),
            ("one on a part of the key", facts(pair(), vec![pkey(), unique("u", &["a"])]), Some("\"u\"")),
            ("one on an expression", facts(pair(), vec![pkey(), unique("u", &[])]), Some("\"u\"")),
            ("one that compares otherwise", facts(pair(), vec![unique("p", &["a"])]), Some("\"p\"")),
            ("one with the key in it", facts(pair(), vec![pkey(), unique("u", &["c", "b", "a"])]), None),
            ("an exclusion constraint", facts(pair(), vec![pkey(), exclusion]), Some("\"t_excl\"")),
        ] {
            let decision = decide(&facts, 2);
            assert_eq!(decision.lanes, if word.is_some() { 1 } else { 2 }, "{case}");
            assert_eq!(decision.reason.is_some(), word.is_some(), "{case}");
            let reason = decision.reason.unwrap_or_default();
            assert!(reason.contains(word.unwrap_or_default()), "{case}: {reason}");
            assert_eq!(decide(&facts, 1), Decision { lanes: 1, reason: None }, "{case}");
        }
    }
}
