//! Reads the candidates with their sizes and statistics.

use std::collections::BTreeMap;

use super::{Chosen, Missing, TableFacts, choose};
use crate::model::{Oid, TableName};
use crate::pg::Session;
use crate::repack::alignment::alignment;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::bloat::{ColumnWidth, bloat, pages_needed};
use crate::repack::options::{Selection, TableRules};

/// Named tables of any kind, the tables of named schemas, or where nothing is named those of the database. A table that
/// somebody has locked exclusively is not measured: its size would have to wait for the lock.
const CANDIDATES: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, pg_get_userbyid(c.relowner)::text, c.relkind::text,
       c.relpersistence::text, c.relispartition,
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
       pg_has_role(c.relowner, 'USAGE'), c.reltuples::float8,
       CASE WHEN coalesce(s.last_analyze, s.last_autoanalyze, s.last_vacuum, s.last_autovacuum) IS NOT NULL
              OR c.reltuples < 0 AND s.n_live_tup > 0
            THEN s.n_live_tup::float8 END,
       coalesce((SELECT o.option_value FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor'),
                '100')::int4,
       c.relpages::int8 * current_setting('block_size')::int8,
       coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)::int8
         * current_setting('block_size')::int8,
       coalesce((SELECT sum(i.relpages) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                  WHERE x.indrelid = c.oid), 0)::int8 * current_setting('block_size')::int8,
       current_setting('block_size')::int4
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE CASE WHEN $1 THEN c.relkind = 'r' AND c.relpersistence = 'p'
            ELSE c.relkind IN ('r', 'p', 'f') AND n.nspname = ANY ($2)
              OR (n.nspname, c.relname) IN (SELECT * FROM unnest($3::text[], $4::text[]) AS wanted (s, t)
                                             WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')) END
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'repcloud', 'repcloud_new', 'repcloud_old')
   AND n.nspname !~ '^pg_(toast|temp)'
 ORDER BY 2, 3";

/// Partitions, nested ones too, of the partitioned tables among those named.
const LEAVES: &str = "\
SELECT n.nspname::text, c.relname::text, ln.nspname::text, l.relname::text
  FROM unnest($1::text[], $2::text[]) AS wanted (s, t)
  JOIN pg_namespace n ON n.nspname = wanted.s
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.t AND c.relkind = 'p'
 CROSS JOIN LATERAL pg_partition_tree(c.oid) AS tree
  JOIN pg_class l ON l.oid = tree.relid AND tree.isleaf AND l.relkind <> 'p'
  JOIN pg_namespace ln ON ln.oid = l.relnamespace
 ORDER BY 1, 2, 3, 4";

const SIZES: &str = "\
SELECT c.oid, coalesce(pg_relation_size(c.oid), 0),
       CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE coalesce(pg_total_relation_size(c.reltoastrelid), 0) END,
       coalesce(pg_indexes_size(c.oid), 0)
  FROM pg_class c
 WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'r'
   AND NOT EXISTS (SELECT FROM pg_locks l
                     LEFT JOIN pg_index x ON x.indexrelid = l.relation
                    WHERE coalesce(x.indrelid, l.relation) IN (c.oid, nullif(c.reltoastrelid, 0))
                      AND l.mode = 'AccessExclusiveLock'
                      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))";

/// Columns that are stored, with their statistics where ANALYZE has left any and our role may see them.
const COLUMNS: &str = "\
SELECT a.attrelid, a.attlen::int4, CASE a.attalign WHEN 'd' THEN 8 WHEN 'i' THEN 4 WHEN 's' THEN 2 ELSE 1 END,
       s.avg_width, s.null_frac::float8, a.attnotnull, a.attname::text, a.attgenerated = 'v'
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
   AND NOT s.inherited
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum";

const SCHEMAS: &str = "\
SELECT w.name FROM unnest($1::text[]) AS w (name)
 WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = w.name)";

/// The same selection, with their partitions in the place of partitioned tables that have any.
pub(crate) async fn with_partitions(session: &Session, selection: &Selection) -> Result<Selection, AskError> {
    const WHAT: &str = "the partitions of tables";
    let schemas: Vec<&str> = selection.tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = selection.tables.iter().map(|table| table.table.as_str()).collect();
    let mut selection = selection.clone();
    for row in rows(session, WHAT, LEAVES, &[&schemas, &names]).await? {
        let name = |at| -> Result<TableName, AskError> {
            Ok(TableName::new(cell::<String>(&row, at, WHAT)?, cell::<String>(&row, at + 1, WHAT)?))
        };
        let (whole, leaf) = (name(0)?, name(2)?);
        selection.tables.retain(|table| *table != whole);
        if !selection.tables.contains(&leaf) {
            selection.tables.push(leaf);
        }
    }
    Ok(selection)
}

/// Reads what is asked for, estimates it, and orders it. `rules` have the fillfactors that new heaps will get.
pub async fn select(
    session: &Session,
    selection: &Selection,
    rules: &TableRules,
) -> Result<Chosen, AskError> {
    let selection = &with_partitions(session, selection).await?;
    let mut tables = candidates(session, selection).await?;
    let missing = missing(session, selection, &tables).await?;
    let oids: Vec<Oid> = tables.iter().map(|(table, _)| table.oid).collect();
    let columns = columns(session, &oids).await?;
    let sizes = sizes(session, &oids).await?;
    for (table, block) in &mut tables {
        if let Some(&[heap, toast, index]) = sizes.get(&table.oid) {
            (table.heap_bytes, table.toast_bytes, table.index_bytes) = (heap, toast, index);
        }
        table.new_heap_bytes = table.heap_bytes;
        if let (Some(rows), Some(Some(columns))) = (table.rows, columns.get(&table.oid)) {
            table.alignment = Some(alignment(columns));
            let columns: Vec<ColumnWidth> = columns.iter().filter_map(|(_, width)| *width).collect();
            let needed = |fillfactor| pages_needed(rows, &columns, fillfactor, *block);
            table.bloat = Some(bloat(table.heap_bytes, needed(table.fillfactor), *block));
            let fillfactor = rules.of(&table.name).fillfactor.unwrap_or(table.fillfactor);
            table.new_heap_bytes = needed(fillfactor).saturating_mul(u64::from(*block));
        }
    }
    Ok(Chosen { missing, ..choose(selection, tables.into_iter().map(|(table, _)| table).collect()) })
}

/// The candidates, with sizes as of the last VACUUM or ANALYZE, and the size of a block.
async fn candidates(session: &Session, selection: &Selection) -> Result<Vec<(TableFacts, u32)>, AskError> {
    const WHAT: &str = "the tables to repack";
    let all = selection.tables.is_empty() && selection.schemas.is_empty();
    let schemas: Vec<&str> = selection.tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = selection.tables.iter().map(|table| table.table.as_str()).collect();
    let found = rows(session, WHAT, CANDIDATES, &[&all, &selection.schemas, &schemas, &names]).await?;
    let read = |row: &tokio_postgres::Row| -> Result<(TableFacts, u32), AskError> {
        let letter = |index| cell::<String>(row, index, WHAT).map(|text| text.chars().next().unwrap_or(' '));
        let bytes = |index| cell::<i64>(row, index, WHAT).map(|bytes| u64::try_from(bytes).unwrap_or(0));
        let counted: Option<f64> = cell(row, 10, WHAT)?;
        // Below zero: neither VACUUM nor ANALYZE has ever counted.
        let written = Some(cell::<f64>(row, 9, WHAT)?).filter(|rows| *rows >= 0.0);
        let table = TableFacts {
            oid: cell(row, 0, WHAT)?,
            name: TableName::new(cell::<String>(row, 1, WHAT)?, cell::<String>(row, 2, WHAT)?),
            owner: cell(row, 3, WHAT)?,
            kind: letter(4)?,
            persistence: letter(5)?,
            partition: cell(row, 6, WHAT)?,
            in_extension: cell(row, 7, WHAT)?,
            owned: cell(row, 8, WHAT)?,
            // The counter lags behind what one transaction has both written and analysed.
            rows: counted.filter(|rows| *rows > 0.0).or(written).or(counted),
            fillfactor: u32::try_from(cell::<i32>(row, 11, WHAT)?).unwrap_or(100),
            heap_bytes: bytes(12)?,
            toast_bytes: bytes(13)?,
            index_bytes: bytes(14)?,
            bloat: None,
            alignment: None,
            new_heap_bytes: 0,
        };
        Ok((table, u32::try_from(cell::<i32>(row, 15, WHAT)?).unwrap_or(8192)))
    };
    found.iter().map(read).collect()
}

/// What was named and is not there.
async fn missing(
    session: &Session,
    selection: &Selection,
    found: &[(TableFacts, u32)],
) -> Result<Vec<Missing>, AskError> {
    const WHAT: &str = "the schemas to repack";
    let missing = |table: &&TableName| !found.iter().any(|(facts, _)| facts.name == **table);
    let tables = selection.tables.iter().filter(missing).map(Missing::table);
    let rows = rows(session, WHAT, SCHEMAS, &[&selection.schemas]).await?;
    let schemas: Vec<String> = rows.iter().map(|row| cell(row, 0, WHAT)).collect::<Result<_, AskError>>()?;
    Ok(tables.chain(schemas.iter().map(|schema| Missing::schema(schema))).collect())
}

/// Heap, TOAST and indexes in bytes.
async fn sizes(session: &Session, oids: &[Oid]) -> Result<BTreeMap<Oid, [u64; 3]>, AskError> {
    const WHAT: &str = "the sizes of tables";
    let mut sizes = BTreeMap::new();
    for row in rows(session, WHAT, SIZES, &[&oids]).await? {
        let bytes = |index| cell::<i64>(&row, index, WHAT).map(|bytes| u64::try_from(bytes).unwrap_or(0));
        sizes.insert(cell(&row, 0, WHAT)?, [bytes(1)?, bytes(2)?, bytes(3)?]);
    }
    Ok(sizes)
}

/// Columns by name; without a width: computed when read. `None` where nothing is known of one that is stored.
type Columns = Option<Vec<(String, Option<ColumnWidth>)>>;

async fn columns(session: &Session, oids: &[Oid]) -> Result<BTreeMap<Oid, Columns>, AskError> {
    const WHAT: &str = "the statistics of tables";
    let mut columns: BTreeMap<Oid, Columns> = BTreeMap::new();
    for row in rows(session, WHAT, COLUMNS, &[&oids]).await? {
        let length: i32 = cell(&row, 1, WHAT)?;
        let fixed = (length > 0).then_some(f64::from(length));
        // Without statistics nothing is known of nulls.
        let certain = fixed.filter(|_| cell(&row, 5, WHAT).unwrap_or(false));
        let width = cell::<Option<i32>>(&row, 3, WHAT)?.map(f64::from);
        let entry = columns.entry(cell(&row, 0, WHAT)?).or_insert_with(|| Some(Vec::new()));
        let name: String = cell(&row, 6, WHAT)?;
        if cell(&row, 7, WHAT)? {
            entry.iter_mut().for_each(|list| list.push((name.clone(), None)));
            continue;
        }
        match width.or(certain) {
            Some(width) => {
                let align = f64::from(cell::<i32>(&row, 2, WHAT)?);
                let null_fraction = cell::<Option<f64>>(&row, 4, WHAT)?.unwrap_or(0.0);
                if let Some(list) = entry {
                    list.push((name, Some(ColumnWidth { fixed, align, width, null_fraction })));
                }
            }
            None => *entry = None,
        }
    }
    Ok(columns)
}
