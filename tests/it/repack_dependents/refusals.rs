//! What cannot be carried over is refused by name, and what is refused stands alone: the table without it is fine.

use super::world::World;

/// Roles and objects of others need the superuser: his statements come after the owner's.
struct Refused {
    name: &'static str,
    app: &'static str,
    admin: &'static str,
    /// How the refusal begins, one entry a refusal.
    wanted: &'static [&'static str],
}

const fn by_app(name: &'static str, app: &'static str, wanted: &'static [&'static str]) -> Refused {
    Refused { name, app, admin: "", wanted }
}

const fn by_admin(name: &'static str, admin: &'static str, wanted: &'static [&'static str]) -> Refused {
    Refused { name, app: "CREATE TABLE t (id int PRIMARY KEY, a int)", admin, wanted }
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int);";

/// Runs each case in a database of its own and compares how the refusals begin.
async fn refused(cases: &[Refused]) {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for case in cases {
        let here = world.case(case.name).await;
        here.app.exec(case.app).await;
        here.admin.exec(case.admin).await;
        let found = here.refusals().await;
        let equal = found.len() == case.wanted.len()
            && found.iter().zip(case.wanted).all(|(found, wanted)| found.starts_with(wanted));
        if !equal {
            wrong.push(format!("{}: wanted {:#?}\nfound {found:#?}", case.name, case.wanted));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn tables_of_the_wrong_sort() {
    refused(&[
        by_app(
            "partitioned",
            "CREATE TABLE t (id int) PARTITION BY LIST (id)",
            &["table public.t: it is partitioned"],
        ),
        by_app(
            "child_of_two",
            "CREATE TABLE p (id int); CREATE TABLE q (v int); CREATE TABLE t (b int) INHERITS (p, q)",
            &[
                "table public.p: the table inherits from it and from others",
                "table public.q: the table inherits from it and from others",
            ],
        ),
        by_app(
            "parent_of_a_child_of_two",
            "CREATE TABLE t (id int); CREATE TABLE q (v int); CREATE TABLE c (b int) INHERITS (t, q)",
            &["table public.c: it inherits from the table and from others"],
        ),
        by_app(
            "inherited_not_valid",
            "CREATE TABLE p (id int); CREATE TABLE t () INHERITS (p); ALTER TABLE p ADD CONSTRAINT k CHECK (id > 0) NOT VALID",
            &["constraint k on public.t: it is inherited and NOT VALID"],
        ),
        Refused {
            name: "relatives_of_another",
            app: "CREATE TABLE p (id int); CREATE TABLE t () INHERITS (p); CREATE TABLE c () INHERITS (t)",
            admin: "ALTER TABLE p OWNER TO other; ALTER TABLE c OWNER TO other",
            wanted: &[
                "table public.c: it inherits from the table; it belongs to other",
                "table public.p: the table inherits from it; it belongs to other",
            ],
        },
        by_app(
            "typed",
            "CREATE TYPE y AS (id int); CREATE TABLE t OF y",
            &["table public.t: it is a table OF public.y"],
        ),
        by_app("view", "CREATE VIEW t AS SELECT 1 AS id", &["table public.t: it is no table"]),
        Refused {
            name: "foreign_table",
            app: "SELECT 1",
            admin: "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; \
                 CREATE FOREIGN TABLE t (id int) SERVER s; ALTER FOREIGN TABLE t OWNER TO app",
            wanted: &["table public.t: it is a foreign table"],
        },
        by_admin(
            "extension",
            "ALTER EXTENSION plpgsql ADD TABLE t",
            &["table public.t: it belongs to extension plpgsql"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn partitions_that_cannot_be_exchanged() {
    const P: &str = "CREATE TABLE p (id int PRIMARY KEY, r int) PARTITION BY LIST (id); CREATE TABLE t PARTITION OF p FOR VALUES IN (1);";
    let with_p = |name, more: &str, wanted| Refused {
        name,
        app: Box::leak(format!("{P} {more}").into_boxed_str()),
        admin: "",
        wanted,
    };
    refused(&[
        with_p(
            "referenced_whole",
            "CREATE TABLE c (id int REFERENCES p)",
            &["foreign key c_id_fkey1 on public.c: it references the partitioned table of this partition"],
        ),
        with_p(
            "an_index_less",
            "CREATE INDEX pr ON ONLY p (r)",
            &["table public.t: index public.pr of public.p has no usable counterpart"],
        ),
        with_p(
            "deep_default",
            "CREATE TABLE d PARTITION OF p DEFAULT PARTITION BY LIST (id)",
            &["table public.d: it is the default partition of public.p and no ordinary table"],
        ),
        with_p(
            "another_key_name",
            "CREATE TABLE r (id int PRIMARY KEY); ALTER TABLE t ADD CONSTRAINT own FOREIGN KEY (r) REFERENCES r; \
             ALTER TABLE p ADD CONSTRAINT whole FOREIGN KEY (r) REFERENCES r",
            &["foreign key own on public.t: it is part of whole of the partitioned table"],
        ),
        Refused {
            name: "parent_of_another",
            app: P,
            admin: "ALTER TABLE p OWNER TO other",
            wanted: &["table public.p: it is the partitioned table of this partition, and belongs to other"],
        },
    ])
    .await;
}

#[tokio::test]
async fn objects_that_cannot_be_carried_over() {
    refused(&[
        by_app(
            "matview",
            "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE MATERIALIZED VIEW m1 AS SELECT id FROM t; \
             CREATE MATERIALIZED VIEW m2 AS SELECT * FROM m1; REFRESH MATERIALIZED VIEW m1 WITH NO DATA; \
             CREATE MATERIALIZED VIEW m3 AS SELECT 'public.t'::regclass, id FROM t; CREATE SCHEMA o; \
             CREATE MATERIALIZED VIEW o.t AS SELECT id FROM t; \
             CREATE FUNCTION f(m1) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            &[
                "materialized view o.t: its name, or that of an index or statistics of it, is in another schema one of the table's",
                "materialized view public.m2: it is filled, but reads one that is not",
                "materialized view public.m3: its query has a regclass constant of the table",
                "function public.f(public.m1): its signature or body uses the table's row type",
            ],
        ),
        by_app(
            "matview_forced",
            "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
             CREATE MATERIALIZED VIEW m AS SELECT id FROM t",
            &["materialized view public.m: the table forces row level security on its owner"],
        ),
        by_app(
            "atomic_of_the_row_type",
            "CREATE TABLE t (id int PRIMARY KEY); \
             CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql BEGIN ATOMIC SELECT * FROM t; END",
            &["function public.f(): its signature or body uses the table's row type"],
        ),
        by_app(
            "row_type",
            "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f(t) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             CREATE TABLE o (r t, s t[]); CREATE DOMAIN d AS t",
            &["table public.o: a column of it has",
"function public.f(public.t): its signature",
"type public.d: it depends on type public.t"],
        ),
        by_app(
            "whole_row_view",
            "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT t FROM t",
            &["view public.v: a column of it has the table's row type"],
        ),
        by_app(
            "partitioned_child",
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (a int REFERENCES t) PARTITION BY LIST (a); \
             CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
            &[
                "foreign key p_a_fkey on public.p: its table is partitioned",
                "foreign key p_a_fkey on public.p1: its table is partitioned",
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn objects_of_others() {
    refused(&[
        by_admin("all_tables", "CREATE PUBLICATION p FOR ALL TABLES", &["publication p: it is FOR ALL TABLES"]),
        by_admin(
            "labels",
            "INSERT INTO pg_seclabel VALUES ('public.t'::regclass, 'pg_class'::regclass, 0, 'dummy', 'secret')",
            &["table public.t: it has security labels"],
        ),
        by_admin("owner", "ALTER TABLE t OWNER TO other", &["table public.t: role app is not its owner other"]),
        by_admin(
            "views",
            "CREATE VIEW v AS SELECT id FROM t; ALTER VIEW v OWNER TO other",
            &["view public.v: it belongs to other"],
        ),
        by_admin(
            "children",
            "CREATE TABLE c (a int REFERENCES t); ALTER TABLE c OWNER TO other",
            &["foreign key c_a_fkey on public.c: its table belongs to other"],
        ),
        by_admin(
            "referenced",
            "CREATE TABLE r (id int PRIMARY KEY); ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES r",
            &["foreign key f on public.t: role app has no REFERENCES on public.r"],
        ),
        by_admin("publications", "CREATE PUBLICATION p FOR TABLE t", &["publication p: it belongs to postgres"]),
        by_admin(
            "statistics",
            "CREATE STATISTICS s ON id, a FROM t; ALTER STATISTICS s OWNER TO other",
            &["statistics public.s: they belong to other"],
        ),
        by_admin(
            "grantors",
            "GRANT SELECT ON t TO other WITH GRANT OPTION; GRANT SELECT (a) ON t TO other WITH GRANT OPTION; SET ROLE other; \
             GRANT SELECT ON t TO reader; GRANT SELECT (a) ON t TO reader; RESET ROLE",
            &["table public.t: role other granted SELECT", "column public.t.a: role other granted SELECT"],
        ),
        by_admin(
            "functions",
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tf(); REVOKE EXECUTE ON FUNCTION tf() FROM PUBLIC",
            &["trigger g on public.t: role app may not execute its function public.tf"],
        ),
        by_admin(
            "disabled",
            "CREATE TABLE c (a int REFERENCES t); ALTER TABLE c OWNER TO app; ALTER TABLE c DISABLE TRIGGER ALL",
            &["foreign key c_a_fkey on public.c: a superuser has disabled its internal triggers"],
        ),
        by_admin(
            "schema",
            "REVOKE CREATE ON SCHEMA public FROM app, team",
            &["schema public: role app has no CREATE on it"],
        ),
        by_admin(
            "database_right",
            "REVOKE CREATE ON DATABASE database_right FROM app",
            &["database database_right: role app has no CREATE on it"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_names_the_table_and_belongs_to_others() {
    refused(&[
        by_admin(
            "atomic",
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t; END; ALTER FUNCTION f() OWNER TO other",
            &["function public.f(): its body is bound to the table, it belongs to other"],
        ),
        by_admin(
            "trigger_from",
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE o (a int); \
             CREATE CONSTRAINT TRIGGER x AFTER INSERT ON o FROM t FOR EACH ROW EXECUTE FUNCTION tf(); ALTER TABLE o OWNER TO other",
            &["trigger x on public.o: it is FROM public.t, its table belongs to other"],
        ),
        by_admin(
            "policies_and_rules",
            "CREATE TABLE o (a int); CREATE POLICY p ON o USING (a IN (SELECT id FROM t)); \
             CREATE RULE r AS ON INSERT TO o DO INSERT INTO public.t VALUES (NEW.a); ALTER TABLE o OWNER TO other",
            &[
                "policy p on public.o: it names public.t, its table belongs to other",
                "rule r on public.o: it names public.t, public.o belongs to other",
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn all_at_once_and_nothing_twice() {
    let world = World::start().await;
    let case = world.case("many").await;
    case.app.exec(TABLE).await;
    case.app
        .exec(
            "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE o (id int); \
             CREATE DOMAIN d AS t; CREATE VIEW whole AS SELECT t FROM t; \
             CREATE FUNCTION f(t, t[]) RETURNS t LANGUAGE sql AS 'SELECT $1'",
        )
        .await;
    let found = case.refusals().await;
    assert_eq!(found.len(), 3, "{found:#?}");
}
