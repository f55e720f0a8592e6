//! The statements of one side. Pure.
//!
//! A row's image is the text of the row as the server's output functions print it (`ROW(…)::text`: NULL and '' are apart,
//! and it is what a stream carries), its digest is 32 hexadecimal digits over that in UTF-8.

use crate::catalog::table_def::{TableDef, TableKind};
use crate::model::quote_ident;
use crate::verify::layout::{KeyColumn, Layout, Order};

/// The function that makes digests; both sides use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Everywhere but on servers in FIPS mode.
    Md5,
    /// Where `md5()` is switched off.
    Sha256,
}

impl Hash {
    /// SQL for the digest of the text `expression`.
    fn of(self, expression: &str) -> String {
        match self {
            Hash::Md5 => format!("md5(convert_to({expression}, 'UTF8'))"),
            Hash::Sha256 => {
                format!("left(encode(sha256(convert_to({expression}, 'UTF8')), 'hex'), 32)")
            }
        }
    }
}

/// A range's ends that are given as parameters, first the low one's values, then the high one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ends {
    /// Exclusive.
    pub(crate) low: bool,
    /// Inclusive.
    pub(crate) high: bool,
}

/// Builds the statements for one table.
#[derive(Debug, Clone)]
pub(crate) struct SideSql {
    /// `ONLY public.orders`.
    from: String,
    /// How its columns are qualified.
    alias: String,
    /// Which rows count.
    filter: String,
    key: Vec<KeyColumn>,
    /// Digest of the row.
    digest: String,
    hash: Hash,
}

impl SideSql {
    /// `filter`: SQL condition on the rows that count.
    pub(crate) fn new(layout: &Layout, table: &TableDef, filter: Option<&str>, hash: Hash) -> Self {
        // A partitioned table is its leaves; the children of an ordinary table are tables of their own.
        let only = if table.kind == TableKind::Partitioned { "" } else { "ONLY " };
        let alias = quote_ident(&table.name.table);
        let columns: Vec<String> =
            layout.columns.iter().map(|c| format!("{alias}.{}", quote_ident(c))).collect();
        SideSql {
            from: format!("{only}{}", table.name),
            // The line break ends a comment at the end of a user's condition.
            filter: filter.map_or_else(|| "true".to_owned(), |text| format!("({text}\n)")),
            key: layout.key.clone(),
            digest: hash.of(&format!("ROW({})::text", columns.join(", "))),
            alias,
            hash,
        }
    }

    /// Number of key columns.
    pub(crate) fn key_columns(&self) -> usize {
        self.key.len()
    }

    /// Counts the rows: their number, and a digest of their versions (`int8`, `int8`).
    pub(crate) fn count(&self) -> String {
        let version = |column: &str| format!("{}.{column}", self.alias);
        // `xmin` has no cast to a number but by its text; the partition's oid tells rows at the same place apart.
        let seed = format!("{}::text::int8 # ({}::int8 << 32)", version("xmin"), version("tableoid"));
        format!(
            "SELECT count(*), coalesce(bit_xor(hashtidextended({}, {seed})), 0) FROM {} WHERE {}",
            version("ctid"),
            self.from,
            self.filter
        )
    }

    /// Rows and digest (`int8`, `text`) of a range.
    pub(crate) fn digest_of_range(&self, ends: Ends) -> String {
        format!("SELECT {} FROM {} WHERE {}", self.totals(), self.from, self.range(ends))
    }

    /// The key of the row at an offset (the last parameter) in a range.
    pub(crate) fn key_at(&self, ends: Ends) -> String {
        format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET ${}::int8 LIMIT 1",
            self.key_texts(),
            self.from,
            self.range(ends),
            self.order(),
            self.parameters(ends) + 1
        )
    }

    /// The key of every n-th row (the last parameter) in a range.
    pub(crate) fn key_of_every(&self, ends: Ends) -> String {
        let names: Vec<String> = (1..=self.key.len()).map(|at| format!("k{at}")).collect();
        let keys: Vec<String> =
            self.texts().iter().zip(&names).map(|(text, name)| format!("{text} AS {name}")).collect();
        format!(
            "SELECT {} FROM (SELECT {}, row_number() OVER (ORDER BY {}) AS n FROM {} WHERE {}) r \
             WHERE r.n % ${}::int8 = 0 ORDER BY r.n",
            names.join(", "),
            keys.join(", "),
            self.order(),
            self.from,
            self.range(ends),
            self.parameters(ends) + 1
        )
    }

    /// Key and digest of every row of a range.
    pub(crate) fn list_range(&self, ends: Ends) -> String {
        self.list_by_key(&self.range(ends))
    }

    /// Rows and digest by bucket: the first `digits` of the hash of the key, or of the row where there is no key.
    pub(crate) fn buckets(&self, digits: usize) -> String {
        format!(
            "SELECT {} AS b, {} FROM {} WHERE {} GROUP BY 1",
            self.bucket(digits),
            self.totals(),
            self.from,
            self.filter
        )
    }

    /// Key and digest of every row of the buckets `$1` (`text[]`); without a key, digest and number of rows.
    pub(crate) fn list_buckets(&self, digits: usize) -> String {
        let rows = format!("{} AND {} = ANY ($1::text[])", self.filter, self.bucket(digits));
        if self.key.is_empty() {
            let digest = &self.digest;
            return format!("SELECT {digest}, count(*)::text FROM {} WHERE {rows} GROUP BY 1", self.from);
        }
        self.list_by_key(&rows)
    }

    /// What stands under each of many keys: `$1`, `$2`, … are `text[]`, a column of the key each. Gives position (from 1),
    /// rows, image, versions, whether a row has just these texts for a key, and where one of them is; nothing for a key without rows.
    pub(crate) fn states_by_key(&self) -> String {
        let each = |make: &dyn Fn(usize, &KeyColumn) -> String, between: &str| {
            let parts: Vec<String> = self.key.iter().enumerate().map(|(at, k)| make(at + 1, k)).collect();
            parts.join(between)
        };
        let arrays = each(&|at, _| format!("${at}::text[]"), ", ");
        let names = each(&|at, _| format!("k{at}"), ", ");
        let found = each(
            &|at, k| match &k.equal_as {
                Some(name) => format!("{} = repcloud_keys.k{at}::{name}", self.column(k)),
                None => format!("{} = repcloud_keys.k{at}", self.text(k)),
            },
            " AND ",
        );
        let same = each(&|at, k| format!("{} = repcloud_keys.k{at}", self.text(k)), " AND ");
        format!(
            "SELECT repcloud_keys.i, count(*), {}, {}, bool_or(r.same), min(r.place) \
             FROM unnest({arrays}) WITH ORDINALITY AS repcloud_keys({names}, i) CROSS JOIN LATERAL \
             (SELECT {} AS h, {}.xmin::text AS x, {same} AS same, {} AS place FROM {} WHERE {} AND {found}) r GROUP BY 1",
            self.all_of("r.h"),
            self.all_of("r.x"),
            self.digest,
            self.alias,
            self.place(),
            self.from,
            self.filter
        )
    }

    /// How often rows with the digests `$1` (`text[]`) are there: digest, rows, versions, and where one of them is.
    pub(crate) fn states_by_digest(&self) -> String {
        format!(
            "SELECT r.h, count(*), {}, min(r.place) FROM (SELECT {} AS h, {}.xmin::text AS x, {} AS place FROM {} WHERE {}) r \
             WHERE r.h = ANY ($1::text[]) GROUP BY 1",
            self.all_of("r.x"),
            self.digest,
            self.alias,
            self.place(),
            self.from,
            self.filter
        )
    }

    /// Where a row is: its table (of a partitioned one, the partition) and its place in it.
    fn place(&self) -> String {
        format!("{0}.tableoid::pg_catalog.regclass::text || ' ctid ' || {0}.ctid::text", self.alias)
    }

    fn list_by_key(&self, rows: &str) -> String {
        let keys = self.key_texts();
        let all = self.all_of(&self.digest);
        let places: Vec<String> = (1..=self.key.len()).map(|at| at.to_string()).collect();
        format!("SELECT {keys}, {all} FROM {} WHERE {rows} GROUP BY {}", self.from, places.join(", "))
    }

    /// One digest over a set of texts, whatever their order.
    fn all_of(&self, text: &str) -> String {
        self.hash.of(&format!("string_agg({text}, ' ' ORDER BY {text} COLLATE \"C\")"))
    }

    /// Number of rows, and the sum of 64 bits of each row's digest: the same in any order, and two equal rows do not
    /// cancel each other as they would by XOR.
    fn totals(&self) -> String {
        format!("count(*), coalesce(sum(('x' || left({}, 16))::bit(64)::int8), 0)::text", self.digest)
    }

    fn bucket(&self, digits: usize) -> String {
        let hashed = match self.key.is_empty() {
            true => self.digest.clone(),
            false => self.hash.of(&format!("ROW({})::text", self.key_texts())),
        };
        format!("left({hashed}, {digits})")
    }

    fn range(&self, ends: Ends) -> String {
        let mut text = self.filter.clone();
        let order = self.order();
        let mut at = 1;
        for (given, operator) in [(ends.low, ">"), (ends.high, "<=")] {
            if given {
                let values: Vec<String> =
                    self.key.iter().enumerate().map(|(i, key)| value(key, at + i)).collect();
                text.push_str(&format!(" AND ({order}) {operator} ({})", values.join(", ")));
                at += self.key.len();
            }
        }
        text
    }

    fn parameters(&self, ends: Ends) -> usize {
        (usize::from(ends.low) + usize::from(ends.high)) * self.key.len()
    }

    fn order(&self) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|key| match key.order {
                Order::Native(_) => self.column(key),
                Order::Bytes => self.text(key),
            })
            .collect();
        parts.join(", ")
    }

    fn key_texts(&self) -> String {
        self.texts().join(", ")
    }

    fn texts(&self) -> Vec<String> {
        self.key.iter().map(|key| self.text(key)).collect()
    }

    fn text(&self, key: &KeyColumn) -> String {
        format!("({}::text COLLATE \"C\")", self.column(key))
    }

    fn column(&self, key: &KeyColumn) -> String {
        format!("{}.{}", self.alias, quote_ident(&key.name))
    }
}

fn value(key: &KeyColumn, at: usize) -> String {
    match &key.order {
        Order::Native(name) => format!("${at}::text::{name}"),
        Order::Bytes => format!("${at}::text COLLATE \"C\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ReplicaIdentity, TableName};
    use crate::verify::layout::Walk;

    fn table(kind: TableKind) -> TableDef {
        TableDef {
            oid: 1,
            name: TableName::new("public", "Big Table"),
            kind,
            persistence: 'p',
            owner: "o".into(),
            columns: Vec::new(),
            indexes: Vec::new(),
            constraints: Vec::new(),
            identity: ReplicaIdentity::Default,
            triggers: Vec::new(),
            row_security: (false, false),
            leaves: Vec::new(),
            pages: 0,
            estimated_rows: -1.0,
        }
    }

    fn sql(kind: TableKind, filter: Option<&str>) -> SideSql {
        let key = |name: &str, order: Order, equal_as: Option<&str>| KeyColumn {
            name: name.into(),
            order,
            equal_as: equal_as.map(str::to_owned),
        };
        let layout = Layout {
            walk: Walk::Ordered,
            columns: vec!["id".into(), "a\"b".into()],
            key: vec![
                key("id", Order::Native("bigint".into()), Some("bigint")),
                key("a\"b", Order::Bytes, None),
            ],
        };
        SideSql::new(&layout, &table(kind), filter, Hash::Md5)
    }

    #[test]
    fn ranges_compare_as_the_key_is_ordered() {
        let text = sql(TableKind::Ordinary, None).key_at(Ends { low: true, high: true });
        assert_eq!(
            text,
            "SELECT (\"Big Table\".id::text COLLATE \"C\"), (\"Big Table\".\"a\"\"b\"::text COLLATE \"C\") \
             FROM ONLY public.\"Big Table\" WHERE true \
             AND (\"Big Table\".id, (\"Big Table\".\"a\"\"b\"::text COLLATE \"C\")) > ($1::text::bigint, $2::text COLLATE \"C\") \
             AND (\"Big Table\".id, (\"Big Table\".\"a\"\"b\"::text COLLATE \"C\")) <= ($3::text::bigint, $4::text COLLATE \"C\") \
             ORDER BY \"Big Table\".id, (\"Big Table\".\"a\"\"b\"::text COLLATE \"C\") OFFSET $5::int8 LIMIT 1"
        );
    }

    #[test]
    fn parameters_count_from_one_whatever_end_is_open() {
        let sql = sql(TableKind::Ordinary, None);
        assert!(sql.key_at(Ends::default()).contains("OFFSET $1"));
        let high = sql.digest_of_range(Ends { low: false, high: true });
        assert!(high.contains("<= ($1::text::bigint, $2::text") && !high.contains("$3"));
    }

    #[test]
    fn a_condition_cannot_swallow_what_follows() {
        let text = sql(TableKind::Partitioned, Some("id > 1 or true -- all")).count();
        assert!(text.ends_with(" FROM public.\"Big Table\" WHERE (id > 1 or true -- all\n)"), "{text}");
    }

    #[test]
    fn rows_are_found_again_by_type_or_by_text() {
        let text = sql(TableKind::Ordinary, None).states_by_key();
        assert!(text.contains("\"Big Table\".id = repcloud_keys.k1::bigint AND"), "{text}");
        assert!(text.contains("(\"Big Table\".\"a\"\"b\"::text COLLATE \"C\") = repcloud_keys.k2"), "{text}");
    }
}
