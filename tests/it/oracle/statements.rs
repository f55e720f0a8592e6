//! What one step of the workload does.

use rand::Rng;
use rand::rngs::StdRng;

use super::tables::{Column, Table, quote};
use super::values::{Kind, copy_field, literal};

/// Something one session does.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Sql(String),
    /// COPY … FROM STDIN and its data.
    Copy(String, String),
}

/// Key numbers: few, so that the same key is hit again and again.
const KEYS: u32 = 40;
/// Key numbers from here on are those of bulk statements.
const BULK: u32 = 1000;

/// The keys a session likes: sessions that hold row locks meet less often, and still do.
pub(super) fn any_key(rng: &mut StdRng, session: usize, sessions: usize) -> u32 {
    let key = rng.random_range(0..KEYS);
    if rng.random_bool(0.1) {
        return key;
    }
    let (session, sessions) = (session as u32, sessions as u32);
    key - key % sessions + session
}

/// Statements about one table by one session.
pub(super) struct Writer<'a> {
    pub(super) table: &'a Table,
    pub(super) session: usize,
    pub(super) sessions: usize,
}

impl Writer<'_> {
    /// One act, often several statements that belong together.
    pub(super) fn acts(&self, rng: &mut StdRng) -> Vec<Act> {
        let sql = |text: String| vec![Act::Sql(text)];
        match rng.random_range(0..100) {
            0..=22 => sql(self.insert(rng)),
            23..=46 => sql(self.update(rng)),
            47..=58 => sql(self.delete(rng)),
            59..=66 => sql(self.change_key(rng)),
            67..=73 => self.same_key(rng),
            74..=80 => self.swap(rng),
            81..=86 => sql(self.update_all(rng)),
            87..=91 => self.copy(rng),
            92..=94 => sql(self.bulk_insert(rng)),
            95..=97 => sql(self.thin_out(rng)),
            98 => sql(self.bulk_update(rng)),
            _ => sql(format!(
                "TRUNCATE {}{}",
                self.name(),
                [" CASCADE", " RESTART IDENTITY CASCADE"][rng.random_range(0..2)]
            )),
        }
    }

    fn name(&self) -> String {
        self.table.sql_name()
    }

    fn key(&self, rng: &mut StdRng) -> u32 {
        any_key(rng, self.session, self.sessions)
    }

    /// Values of the writable columns for a key number.
    fn row(&self, key: u32, rng: &mut StdRng) -> Vec<Option<String>> {
        let value = |c: &Column| match c.key {
            Some(kind) => Some(kind.raw(key, rng)),
            None => c.kind.raw(rng),
        };
        self.table.writable().map(value).collect()
    }

    fn columns(&self) -> String {
        self.table.writable().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ")
    }

    fn values(&self, key: u32, rng: &mut StdRng) -> String {
        let values: Vec<_> = self.row(key, rng).iter().map(|v| literal(v.as_deref())).collect();
        format!("({})", values.join(", "))
    }

    fn overriding(&self) -> &'static str {
        if self.table.identity_always { " OVERRIDING SYSTEM VALUE" } else { "" }
    }

    fn condition(&self, key: u32, rng: &mut StdRng) -> String {
        let parts: Vec<_> = self
            .table
            .keys()
            .map(|(c, kind)| format!("{} = {}", quote(&c.name), literal(Some(&kind.raw(key, rng)))))
            .collect();
        format!("({})", parts.join(" AND "))
    }

    fn conditions(&self, rng: &mut StdRng) -> String {
        let keys = rng.random_range(1..4);
        let parts: Vec<_> = (0..keys)
            .map(|_| {
                let key = self.key(rng);
                self.condition(key, rng)
            })
            .collect();
        parts.join(" OR ")
    }

    fn insert(&self, rng: &mut StdRng) -> String {
        let rows = [1, 1, 1, 2, 5][rng.random_range(0..5)];
        let mut keys: Vec<u32> = (0..rows).map(|_| self.key(rng)).collect();
        if self.table.upsert {
            keys.sort_unstable();
            keys.dedup();
        }
        let rows: Vec<_> = keys.into_iter().map(|k| self.values(k, rng)).collect();
        let conflict = match rng.random_range(0..5) {
            0 if self.table.upsert => self.upsert(rng),
            1..=3 => self.or_nothing(),
            _ => String::new(),
        };
        let (name, columns, overriding) = (self.name(), self.columns(), self.overriding());
        format!("INSERT INTO {name} ({columns}){overriding} VALUES {}{conflict}", rows.join(", "))
    }

    /// A deferrable constraint cannot decide a conflict: then the key must be named.
    fn or_nothing(&self) -> String {
        let deferrable = self.table.columns.iter().any(|c| c.definition.contains("DEFERRABLE"));
        let key: Vec<_> = self.table.keys().map(|(c, _)| quote(&c.name)).collect();
        match (self.table.upsert, deferrable) {
            (true, true) => format!(" ON CONFLICT ({}) DO NOTHING", key.join(", ")),
            (true, false) => " ON CONFLICT DO NOTHING".to_owned(),
            (false, _) => String::new(),
        }
    }

    fn upsert(&self, rng: &mut StdRng) -> String {
        let key: Vec<_> = self.table.keys().map(|(c, _)| quote(&c.name)).collect();
        let others: Vec<_> = self.others().collect();
        if others.is_empty() {
            return format!(" ON CONFLICT ({}) DO NOTHING", key.join(", "));
        }
        let column = quote(&others[rng.random_range(0..others.len())].name);
        format!(" ON CONFLICT ({}) DO UPDATE SET {column} = excluded.{column}", key.join(", "))
    }

    /// Columns outside the key that can be written.
    fn others(&self) -> impl Iterator<Item = &Column> {
        self.table.writable().filter(|c| c.key.is_none())
    }

    /// A few columns set to new values; columns with large values are often left alone.
    fn assignments(&self, rng: &mut StdRng) -> Option<String> {
        let spare_large = rng.random_bool(0.7);
        let others: Vec<_> = self.others().filter(|c| !(spare_large && c.kind == Kind::Toast)).collect();
        if others.is_empty() {
            return None;
        }
        let count = rng.random_range(1..=others.len().min(4));
        let first = rng.random_range(0..others.len());
        let chosen = (0..count).map(|i| others[(first + i) % others.len()]);
        let parts: Vec<_> =
            chosen.map(|c| format!("{} = {}", quote(&c.name), literal(c.kind.raw(rng).as_deref()))).collect();
        Some(parts.join(", "))
    }

    fn update(&self, rng: &mut StdRng) -> String {
        let Some(assignments) = self.assignments(rng) else { return self.delete(rng) };
        format!("UPDATE {} SET {assignments} WHERE {}", self.name(), self.conditions(rng))
    }

    fn update_all(&self, rng: &mut StdRng) -> String {
        // A statement about every row would block all other sessions for long: about a third of them.
        let Some(assignments) = self.assignments(rng) else { return self.insert(rng) };
        let keys: Vec<_> = (0..KEYS / 3)
            .map(|i| self.condition((i * self.sessions as u32 + self.session as u32) % KEYS, rng))
            .collect();
        format!("UPDATE {} SET {assignments} WHERE {}", self.name(), keys.join(" OR "))
    }

    fn delete(&self, rng: &mut StdRng) -> String {
        format!("DELETE FROM {} WHERE {}", self.name(), self.conditions(rng))
    }

    fn change_key(&self, rng: &mut StdRng) -> String {
        if !self.table.key_moves {
            return self.delete(rng);
        }
        let (from, to) = (self.key(rng), self.key(rng));
        let mut parts: Vec<_> = self
            .table
            .keys()
            .map(|(c, kind)| format!("{} = {}", quote(&c.name), literal(Some(&kind.raw(to, rng)))))
            .collect();
        if rng.random_bool(0.4) {
            parts.extend(self.assignments(rng));
        }
        format!("UPDATE {} SET {} WHERE {}", self.name(), parts.join(", "), self.condition(from, rng))
    }

    /// Several changes of one key in one transaction.
    fn same_key(&self, rng: &mut StdRng) -> Vec<Act> {
        let key = self.key(rng);
        let delete =
            |rng: &mut StdRng| format!("DELETE FROM {} WHERE {}", self.name(), self.condition(key, rng));
        let insert = |rng: &mut StdRng| {
            let values = self.values(key, rng);
            format!("INSERT INTO {} ({}){} VALUES {values}", self.name(), self.columns(), self.overriding())
        };
        let update = |rng: &mut StdRng| match self.assignments(rng) {
            Some(set) => format!("UPDATE {} SET {set} WHERE {}", self.name(), self.condition(key, rng)),
            None => "SELECT 1".to_owned(),
        };
        let mut list = vec![delete(rng), insert(rng), update(rng)];
        if rng.random_bool(0.5) {
            list.push(delete(rng));
            if rng.random_bool(0.5) {
                list.push(insert(rng));
                list.push(update(rng));
            }
        }
        list.into_iter().map(Act::Sql).collect()
    }

    /// Two rows exchange their unique value, or their keys, or three go round.
    fn swap(&self, rng: &mut StdRng) -> Vec<Act> {
        let (a, b) = (self.key(rng), self.key(rng));
        let name = self.name();
        if let Some(unique) = self.others().find(|c| c.kind == Kind::Unique) {
            let column = quote(&unique.name);
            let (x, y) = (self.condition(a, rng), self.condition(b, rng));
            if unique.definition.contains("DEFERRABLE") {
                let other = format!(
                    "(SELECT o.{column} FROM {name} o WHERE o.{column} IS DISTINCT FROM t.{column} AND ({x} OR {y}) LIMIT 1)"
                );
                return vec![Act::Sql(format!("UPDATE {name} t SET {column} = {other} WHERE {x} OR {y}"))];
            }
            let spare = rng.random_range(100_000..1_000_000);
            return vec![
                Act::Sql(format!("UPDATE {name} SET {column} = -{column} - {spare} WHERE {x} OR {y}")),
                Act::Sql(format!(
                    "UPDATE {name} t SET {column} = -{spare} - (SELECT o.{column} FROM {name} o WHERE ({x}) IS DISTINCT FROM (t.id = o.id) AND ({x} OR {y}) LIMIT 1) WHERE {x}"
                )),
                Act::Sql(format!("UPDATE {name} SET {column} = {column} % 1000 WHERE {column} < -1000")),
            ];
        }
        if !self.table.key_moves {
            return vec![Act::Sql(self.update(rng))];
        }
        let spare = BULK * 10 + rng.random_range(0..BULK);
        [(a, spare), (b, a), (spare, b)]
            .into_iter()
            .map(|(from, to)| {
                let parts: Vec<_> = self
                    .table
                    .keys()
                    .map(|(c, kind)| format!("{} = {}", quote(&c.name), literal(Some(&kind.raw(to, rng)))))
                    .collect();
                Act::Sql(format!(
                    "UPDATE {name} SET {} WHERE {}",
                    parts.join(", "),
                    self.condition(from, rng)
                ))
            })
            .collect()
    }

    fn copy(&self, rng: &mut StdRng) -> Vec<Act> {
        let rows = rng.random_range(1..6);
        let mut keys: Vec<u32> = (0..rows).map(|_| self.key(rng) + KEYS * self.sessions as u32).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut data = String::new();
        for key in keys {
            let row: Vec<_> = self.row(key, rng).iter().map(|v| copy_field(v.as_deref())).collect();
            data.push_str(&row.join("\t"));
            data.push('\n');
        }
        vec![Act::Copy(format!("COPY {} ({}) FROM STDIN", self.name(), self.columns()), data)]
    }

    /// More rows than a group sends by statement.
    fn bulk_insert(&self, rng: &mut StdRng) -> String {
        let from = BULK * (1 + self.session as u32) + rng.random_range(0..600);
        let to = from + rng.random_range(50..300);
        let row = self.row(0, rng);
        let values: Vec<_> = self
            .table
            .writable()
            .zip(&row)
            .map(|(c, raw)| match (c.key, c.kind) {
                (Some(kind), _) => kind.expression().to_owned(),
                (None, Kind::Unique) => "10000 + g".to_owned(),
                _ => literal(raw.as_deref()),
            })
            .collect();
        let conflict = self.or_nothing();
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM generate_series({from}, {to}) g{conflict}",
            self.name(),
            self.columns(),
            self.overriding(),
            values.join(", ")
        )
    }

    /// Every row of this session's bulk statements that it can lock.
    fn bulk_update(&self, rng: &mut StdRng) -> String {
        match self.assignments(rng) {
            Some(set) => format!("UPDATE {} SET {set}", self.name()),
            None => self.thin_out(rng),
        }
    }

    fn thin_out(&self, rng: &mut StdRng) -> String {
        let (name, share) = (self.name(), rng.random_range(2..9));
        format!(
            "DELETE FROM {name} WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM {name} x ORDER BY md5(x::text) LIMIT (SELECT count(*) * {share} / 10 FROM {name}))"
        )
    }
}
