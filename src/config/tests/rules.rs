//! Contradictions.

use super::*;

#[test]
fn contradictions_within_an_entry() {
    for (lines, expected) in [
        (
            "target_table = \"p.x\"\ntables = [\"p.a\", \"p.b\"]",
            "13: replicate[1].target_table: goes with one table only; give the table an entry of its own, or \
             remove target_table",
        ),
        (
            "target_table = \"p.x\"\ntables = [\"p.*\"]",
            "13: replicate[1].target_table: goes with one table only; give the table an entry of its own, or \
             remove target_table",
        ),
        ("tables = []", "13: replicate[1].tables: is empty; name at least one, or remove the key"),
        ("tables = [\"p.a\", \"P.A\"]", "13: replicate[1].tables: names p.a twice; name it once"),
        ("tables = [\"p.a\", \"p.*\"]", "13: replicate[1].tables: names p.a twice; name it once"),
        (
            "tables = [\"p.a\"]\ncolumns = [\"x\"]\nkey = [\"id\"]",
            "14: replicate[1].columns: lacks \"id\", a column of key; add it",
        ),
        (
            "tables = [\"p.a\"]\ncolumns = [\"x\", \"X\"]",
            "14: replicate[1].columns: names the column \"x\" twice; name it once",
        ),
        (
            "tables = [\"p.a\"]\ndeleted_column = \"x\"",
            "14: replicate[1].deleted_column: goes with mode \"logdel\" only; remove it",
        ),
        (
            "tables = [\"p.a\"]\ncontrol = \"updated_at\"",
            "14: replicate[1].control: not built yet (the modes inserter and updater); remove the key",
        ),
        (
            "tables = [\"p.a\"]\non_schema_change = \"add\"",
            "14: replicate[1].on_schema_change: \"add\" is not built yet (adding columns to a target); choose \
             another value",
        ),
        (
            "tables = [\"p.a\"]\ngrants = [\"drop to x\"]",
            "14: replicate[1].grants: \"drop to x\" is not a grant like \"select to analysts\"",
        ),
    ] {
        let text = entry(&format!("source = \"a\"\ntarget = \"b\"\nmode = \"dml\"\n{lines}\n"));
        assert_eq!(errors(&text), [expected]);
    }
    let logdel = |lines: &str| {
        errors(&entry(&format!(
            "source = \"a\"\ntarget = \"b\"\nmode = \"logdel\"\ntables = [\"p.a\"]\n{lines}\n"
        )))
    };
    assert!(logdel("publish = \"insert\"")[0].starts_with("14: replicate[1].publish: "));
    assert!(
        logdel("columns = [\"repcloud_source_deleted\"]")[0].starts_with("14: replicate[1].columns: names")
    );
}

#[test]
fn source_and_target_must_exist_and_differ() {
    let found = errors(&entry(&PLAIN.replace("\"a\"", "\"aa\"")));
    assert_eq!(found, ["10: replicate[1].source: there is no connection \"aa\"; did you mean \"a\"?"]);
    let same = PLAIN.replace("\"b\"", "\"a\"");
    assert!(errors(&entry(&same))[0].starts_with("11: replicate[1].target: is the database of the source"));
    let renamed = |to: &str| entry(&format!("{same}target_table = \"{to}\"\n"));
    assert!(read(&renamed("p.x")).is_ok());
    assert_eq!(errors(&renamed("p.t")).len(), 1);
    // Another name for the same database is the same database.
    let twin = entry(PLAIN).replace("\"e\"", "\"d\"");
    assert_eq!(errors(&twin).len(), 1);
}

#[test]
fn no_target_table_has_two_entries() {
    let second = |lines: &str| {
        let second = format!("[[replicate]]\nsource = \"a\"\ntarget = \"b\"\nmode = \"dml\"\n{lines}\n");
        read(&format!("{}{second}", entry(PLAIN))).map(|_| ()).map_err(|e| e[0].to_string())
    };
    let twice = second("tables = [\"p.t\"]").unwrap_err();
    assert_eq!(
        twice,
        "/c/my.toml:18: replicate[2].tables: feeds p.t of \"b\", which replicate[1] (line 9) feeds already; \
         remove one of them, or give it another target_table"
    );
    assert!(second("tables = [\"p.*\"]").is_err());
    assert!(second("tables = [\"p.x\"]\ntarget_table = \"p.t\"").is_err());
    // One table may feed several.
    assert_eq!(second("tables = [\"p.t\"]\ntarget_table = \"p.t2\""), Ok(()));
    assert_eq!(second("tables = [\"q.*\"]"), Ok(()));
    // Whether q has the renamed table is known only when q is read.
    assert_eq!(second("tables = [\"q.t\"]\ntarget_table = \"q.x\""), Ok(()));
}

#[test]
fn a_slot_of_the_dba_needs_its_publication_and_serves_one_target() {
    let with = |keys: &str, more: &str| format!("{}{more}", entry(PLAIN).replacen("\"h\"\n", keys, 1));
    let lone = errors(&with("\"h\"\nslot_name = \"s\"\n", ""));
    assert_eq!(lone.len(), 1);
    assert!(lone[0].starts_with("3: connections.a.slot_name: a slot made by the DBA needs"), "{lone:?}");
    assert!(read(&with("\"h\"\npublication = \"p\"\n", "")).is_ok());
    let both = "\"h\"\nslot_name = \"s\"\npublication = \"p\"\n";
    assert!(read(&with(both, "")).is_ok());
    let more = "[connections.c]\nhost = \"x\"\nuser = \"u\"\ndatabase = \"d\"\n[[replicate]]\n".to_owned()
        + &PLAIN.replace("\"b\"", "\"c\"");
    assert!(errors(&with(both, &more))[0].contains("one slot cannot serve several targets (b, c)"));
    let unused = entry(PLAIN).replacen("[[rep", "publication = \"p\"\n[[rep", 1);
    assert_eq!(warnings(&unused), ["5: connections.b.publication: has no effect: no entry has this source"]);
}

#[test]
fn what_is_not_built_is_refused_by_name_every_key_and_value() {
    use crate::config::not_built::{NOT_BUILT, Part};
    for entry in NOT_BUILT {
        let line = format!("{} = \"{}\"\n", entry.key, entry.value.unwrap_or("x"));
        // A value replaces the one that stands there.
        let plain =
            if entry.key == "mode" { PLAIN.replace("mode = \"dml\"\n", "") } else { PLAIN.to_owned() };
        let text = match entry.part {
            Part::Top => format!("{line}{TWO}"),
            Part::Logging => format!("{TWO}[logging]\n{line}"),
            Part::Connection => format!("{TWO}{line}"),
            Part::Replicate => format!("{TWO}[[replicate]]\n{plain}{line}"),
            Part::TableConf => panic!("every key of a table_conf is built"),
        };
        // pid_dir alone tells that a file was written for rpcl.
        let found = if entry.key == "pid_dir" { warnings(&text) } else { errors(&text) };
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(entry.key) && found[0].contains("not built yet ("), "{found:?}");
    }
}
