//! Which tables are chosen, in which order.

use super::*;

pub(in crate::repack) fn table(name: &str, bloat: Option<(u64, f64)>) -> TableFacts {
    TableFacts {
        oid: 1,
        name: TableName::new("s", name),
        owner: "app".to_owned(),
        kind: 'r',
        persistence: 'p',
        partition: false,
        in_extension: false,
        owned: true,
        heap_bytes: 1000,
        toast_bytes: 0,
        index_bytes: 500,
        rows: None,
        fillfactor: 100,
        alignment: None,
        bloat: bloat.map(|(bytes, percent)| Bloat { bytes, percent }),
        new_heap_bytes: 1000,
    }
}

fn names(chosen: &Chosen) -> Vec<&str> {
    chosen.tables.iter().map(|table| table.name.table.as_str()).collect()
}

#[test]
fn most_bloat_comes_first_and_the_unknown_last() {
    let large = TableFacts { heap_bytes: 9000, ..table("large", None) };
    let candidates =
        vec![table("b", Some((10, 1.0))), table("u", None), table("a", Some((500, 50.0))), large];
    assert_eq!(names(&choose(&Selection::default(), candidates)), ["a", "b", "large", "u"]);
}

#[test]
fn limits_leave_tables_out_and_say_so() {
    let selection = Selection { min_bloat: Some(20.0), min_size: Some(1200), ..Selection::default() };
    let small = TableFacts { index_bytes: 0, ..table("small", Some((900, 90.0))) };
    let candidates =
        vec![small, table("unknown", None), table("lean", Some((19, 19.9))), table("fat", Some((300, 30.0)))];
    let chosen = choose(&selection, candidates);
    assert_eq!(names(&chosen), ["fat"]);
    let why: Vec<String> =
        chosen.left_out.iter().map(|(table, why)| format!("{}: {why}", table.table)).collect();
    assert_eq!(why.len(), 3);
    assert!(why[0].starts_with("lean: an estimated 20 %"), "{why:?}");
    assert!(why[1].contains("1000 bytes, fewer than 1200"), "{why:?}");
    assert!(why[2].contains("ANALYZE"), "{why:?}");
}

#[test]
fn what_cannot_be_repacked_is_left_out_unless_it_was_named() {
    let kinds = || {
        vec![
            TableFacts { kind: 'p', ..table("partitioned", None) },
            TableFacts { persistence: 'u', ..table("unlogged", None) },
            TableFacts { owned: false, ..table("theirs", None) },
            table("plain", None),
        ]
    };
    let schema = Selection { schemas: vec!["s".into()], ..Selection::default() };
    let chosen = choose(&schema, kinds());
    assert_eq!((names(&chosen), chosen.left_out.len()), (vec!["plain"], 3));
    let chosen = choose(&Selection::default(), kinds());
    assert_eq!((names(&chosen), chosen.left_out.len()), (vec!["plain"], 0));
    let named = Selection { tables: vec![TableName::new("s", "theirs")], ..Selection::default() };
    assert_eq!(names(&choose(&named, kinds())), ["plain", "theirs"]);
}
