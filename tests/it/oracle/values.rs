//! Values of every type family, as PostgreSQL's input functions read them.

use rand::Rng;
use rand::rngs::StdRng;

/// How a column's values are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of these.
    Pool(&'static [&'static str]),
    /// One of these that is a number: neither NaN nor an infinity.
    Finite(&'static [&'static str]),
    /// Any small number.
    Int,
    /// A short text, now and then an odd one.
    Text,
    /// More than 2 kB that do not compress; the columns have STORAGE EXTERNAL.
    Toast,
    /// A number that no other row shall have (a unique constraint decides).
    Unique,
    /// Computed by the server.
    Computed,
}

/// How the workload's key number becomes a value of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Plain,
    /// The number divided by 8, and the rest: two columns.
    High,
    Low,
    Text,
    /// Upper and lower case by chance: equal for citext, not as bytes.
    AnyCase,
    /// 7, 7.0, 7.00 by chance: equal, not as text.
    AnyScale,
    Uuid,
    /// 0 and -0 by chance.
    Float,
    /// Days, or as many hours, by chance.
    Interval,
}

impl KeyKind {
    /// The value for key number `k`.
    pub(super) fn raw(self, k: u32, rng: &mut StdRng) -> String {
        match self {
            KeyKind::Plain => k.to_string(),
            KeyKind::High => (k / 8).to_string(),
            KeyKind::Low => format!("part {}", k % 8),
            KeyKind::Text => format!("key '{k}\" \\ ü"),
            KeyKind::AnyCase => {
                let text = format!("key number {k}");
                text.chars().map(|c| if rng.random_bool(0.3) { c.to_ascii_uppercase() } else { c }).collect()
            }
            KeyKind::AnyScale => format!("{k}{}", ["", ".0", ".00", ".000"][rng.random_range(0..4)]),
            KeyKind::Uuid => format!("{k:032x}"),
            KeyKind::Float if k == 0 => ["0", "-0"][rng.random_range(0..2)].to_owned(),
            KeyKind::Float => format!("{k}.1"),
            KeyKind::Interval if rng.random_bool(0.5) => format!("{} hours", k * 24),
            KeyKind::Interval => format!("{k} days"),
        }
    }

    /// The same as an SQL expression over `g`.
    pub(super) fn expression(self) -> &'static str {
        match self {
            KeyKind::Plain | KeyKind::AnyScale => "g",
            KeyKind::High => "g / 8",
            KeyKind::Low => "'part ' || g % 8",
            KeyKind::Text => "'key ''' || g || '\" \\ ü'",
            KeyKind::AnyCase => "'Key Number ' || g",
            KeyKind::Uuid => "lpad(to_hex(g), 32, '0')::uuid",
            KeyKind::Float => "g + 0.1",
            KeyKind::Interval => "make_interval(days => g)",
        }
    }
}

/// Odd texts: COPY's and array syntax's special characters, the empty one, the word NULL.
pub(super) const TEXTS: &[&str] = &[
    "",
    " ",
    "NULL",
    "\\N",
    "\\.",
    "tab\tline\nreturn\rend",
    "back\\slash",
    "'quote\" $1 ?",
    "ünïcödé 🚀",
    "{a,b}",
    "(1,2)",
    "trailing  ",
];

impl Kind {
    /// A value; `None` is NULL.
    pub(super) fn raw(self, rng: &mut StdRng) -> Option<String> {
        if rng.random_bool(0.12) {
            return None;
        }
        Some(match self {
            Kind::Pool(values) => values[rng.random_range(0..values.len())].to_owned(),
            Kind::Finite(values) => {
                let finite: Vec<_> =
                    values.iter().filter(|v| **v != "NaN" && !v.contains("Infinity")).collect();
                (*finite[rng.random_range(0..finite.len())]).to_owned()
            }
            Kind::Int => rng.random_range(-50..1000).to_string(),
            Kind::Text if rng.random_bool(0.3) => TEXTS[rng.random_range(0..TEXTS.len())].to_owned(),
            Kind::Text => format!("text {}", rng.random_range(0..10_000)),
            Kind::Toast => {
                let length = rng.random_range(2100..5000);
                (0..length).map(|_| char::from(rng.random_range(b' '..=b'~'))).collect()
            }
            Kind::Unique => rng.random_range(0..200).to_string(),
            Kind::Computed => return None,
        })
    }
}

/// A value as an SQL literal.
pub(super) fn literal(raw: Option<&str>) -> String {
    match raw {
        None => "NULL".to_owned(),
        Some(raw) if raw.contains('\\') => format!(" E'{}'", raw.replace('\\', "\\\\").replace('\'', "''")),
        Some(raw) => format!("'{}'", raw.replace('\'', "''")),
    }
}

/// A value in COPY's text format.
pub(super) fn copy_field(raw: Option<&str>) -> String {
    match raw {
        None => "\\N".to_owned(),
        Some(raw) => raw.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r"),
    }
}

/// Name, type and values of a column for every type family.
pub(super) const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("c_bool", "bool", &["t", "f"]),
    ("c_int2", "int2", &["-32768", "0", "32767"]),
    ("c_int4", "int4", &["-2147483648", "7", "2147483647"]),
    ("c_int8", "int8", &["-9223372036854775808", "9223372036854775807"]),
    (
        "c_numeric",
        "numeric",
        &[
            "0",
            "-0.00",
            "1.0",
            "1.00",
            "NaN",
            "Infinity",
            "-Infinity",
            "123456789012345678901234567890.123456789",
            "1e-20",
            "1e100",
        ],
    ),
    ("c_numeric_n", "numeric(12,3)", &["0", "-999999999.999", "1.5", "NaN"]),
    (
        "c_float4",
        "float4",
        &["-0", "0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1.17549435e-38", "1e-45", "0.1"],
    ),
    (
        "c_float8",
        "float8",
        &[
            "-0",
            "0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1.7976931348623157e308",
            "5e-324",
            "0.30000000000000004",
            "1e22",
        ],
    ),
    ("c_money", "money", &["12.34", "-92233720368547758.08", "0"]),
    ("c_text", "text", TEXTS),
    ("c_varchar", "varchar(20)", &["", "ab ", "üüüüüüüüüüüüüüüüüüüü"]),
    ("c_char", "char(8)", &["ab", "ab  c", "", "üü"]),
    ("c_bpchar", "bpchar", &["ab", "ab   ", "", " x "]),
    ("c_qchar", "\"char\"", &["a", "", "~", "\\"]),
    ("c_name", "name", &["some_name", "", "Quoted \"Name\""]),
    ("c_bytea", "bytea", &["\\x", "\\x00ff5c0a275c", "\\xdeadbeef"]),
    ("c_date", "date", &["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "2024-02-29"]),
    (
        "c_ts",
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "2024-02-29 12:34:56.789",
        ],
    ),
    ("c_ts3", "timestamp(3)", &["2024-02-29 12:34:56.789", "1999-12-31 23:59:59.999"]),
    (
        "c_tstz",
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "0001-01-01 00:00:00+00 BC",
            "2024-03-31 02:30:00+01",
            "294276-12-31 23:59:59.999999+00",
        ],
    ),
    ("c_time", "time", &["00:00", "24:00:00", "23:59:59.999999"]),
    ("c_timetz", "timetz", &["00:00+14", "12:00:00.123456-15:59:59", "24:00:00-00"]),
    (
        "c_interval",
        "interval",
        &[
            "-1 year -2 mons +3 days -04:05:06.789",
            "0",
            "178000000 years",
            "-1 mon +1 day",
            "1 day -00:00:00.000001",
        ],
    ),
    ("c_interval_n", "interval day to second(2)", &["1 day 02:03:04.05", "-00:00:01"]),
    ("c_uuid", "uuid", &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    (
        "c_json",
        "json",
        &[
            "{\"a\":1,\"a\":2}",
            "{\"x\":\"\\u0000\"}",
            " [1 , 2 ]\n",
            "\"\\ud83d\\ude00\"",
            "null",
            "{\"b\": \"tab\\t\\\\\"}",
            "1E400",
        ],
    ),
    (
        "c_jsonb",
        "jsonb",
        &[
            "{\"a\":1e1000}",
            "{\"z\": -0.0, \"n\": 123456789012345678901234567890.000}",
            "\"\\\\\"",
            "[]",
            "null",
            "{\"k\": [null, {}]}",
        ],
    ),
    (
        "c_int_array",
        "int4[]",
        &["{}", "{1,NULL,3}", "[0:2]={1,2,3}", "{{1,2},{3,NULL}}", "[-1:0][5:6]={{1,2},{3,4}}"],
    ),
    (
        "c_text_array",
        "text[]",
        &[
            "{}",
            "{\"\",NULL,\"NULL\",\"a,b\",\"q\\\"uote\",\"b\\\\s\",\"{x}\"}",
            "[2:3]={a,b}",
            "{{{x}},{{NULL}}}",
        ],
    ),
    ("c_float_array", "float8[]", &["{NaN,-0,Infinity}", "{5e-324}"]),
    ("c_box_array", "box[]", &["{(1,1),(0,0);(2,2),(1,1)}", "{}"]),
    ("c_int4range", "int4range", &["empty", "[1,5)", "(,)", "[,7]"]),
    ("c_numrange", "numrange", &["[1.0,1.00]", "empty", "(NaN,)", "[1.10,2.2)"]),
    (
        "c_tstzrange",
        "tstzrange",
        &["[\"2020-01-01 00:00+00\",infinity]", "(,)", "[,\"0044-03-15 00:00+00 BC\")"],
    ),
    ("c_multirange", "int4multirange", &["{}", "{[1,3),[7,9)}", "{(,)}"]),
    ("c_datemulti", "datemultirange", &["{[2020-01-01,infinity)}", "{}", "{[-infinity,2000-01-01)}"]),
    (
        "c_pair",
        "public.pair",
        &["(,)", "(\"a \"\"b\"\" (c)\",7)", "(\"\",)", "(\"back\\\\slash, comma\",-1)"],
    ),
    ("c_pairs", "public.pair[]", &["{}", "{NULL,\"(x,1)\"}", "{\"(\\\"a \\\"\\\"b\\\",2)\"}"]),
    ("c_nest", "public.nest", &["(\"(a,1)\",\"{ok,NULL}\",\"[1,5)\")", "(,,)", "(\"(,)\",{},empty)"]),
    ("c_mood", "public.\"Mood\"", &["sad", "ok", "Very 'Happy'"]),
    ("c_moods", "public.\"Mood\"[]", &["{}", "{sad,NULL,\"Very 'Happy'\"}"]),
    ("c_even", "public.even", &["0", "-2", "4"]),
    ("c_short", "public.short", &["", "abc", "x y"]),
    ("c_evens", "public.evens", &["{0,2}", "{}", "{4,NULL}"]),
    ("c_citext", "public.citext", &["", "MiXed", "mixed", "Ü"]),
    ("c_hstore", "public.hstore", &["", "a=>NULL, \"b c\"=>\"x\\\"y\"", "\"\"=>\"\""]),
    ("c_tsvector", "tsvector", &["", "a:1A b:2,3B 'it''s'", "'space d' 'back\\\\'"]),
    ("c_tsquery", "tsquery", &["a & !(b|c:*A)", "", "a <-> b"]),
    ("c_bit", "bit(5)", &["10101", "00000"]),
    ("c_varbit", "varbit(12)", &["", "1011"]),
    ("c_varbit_any", "varbit", &["", "1", "101010101010101010101"]),
    ("c_inet", "inet", &["10.1.2.3", "10.1.2.3/8", "::1", "::ffff:1.2.3.4/96"]),
    ("c_cidr", "cidr", &["10.0.0.0/8", "2001:db8::/32", "1.2.3.4/32"]),
    ("c_mac", "macaddr", &["08:00:2b:01:02:03"]),
    ("c_mac8", "macaddr8", &["08:00:2b:01:02:03:04:05"]),
    (
        "c_xml",
        "xml",
        &["<a b=\"1\">&amp;</a>", "text only", "<?xml version=\"1.0\"?><x/>", "", "<!-- c --><y>\n</y>"],
    ),
    ("c_point", "point", &["(1,2)", "(-0,NaN)", "(Infinity,1e-300)"]),
    ("c_line", "line", &["{1,2,3}"]),
    ("c_lseg", "lseg", &["[(0,0),(1,1)]"]),
    ("c_box", "box", &["(1,1),(0,0)", "(0.1,0.2),(-0,-1)"]),
    ("c_path", "path", &["((0,0),(1,1))", "[(0,0),(1,1),(2,0)]"]),
    ("c_polygon", "polygon", &["((0,0),(1,1),(1,0))"]),
    ("c_circle", "circle", &["<(1,2),3>"]),
    ("c_oid", "oid", &["0", "4294967295"]),
    ("c_lsn", "pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"]),
    ("c_xid8", "xid8", &["0", "18446744073709551615"]),
    ("c_tid", "tid", &["(0,1)", "(4294967295,65535)"]),
    ("c_regclass", "regclass", &["pg_class", "-"]),
    ("c_regtype", "regtype", &["integer", "timestamp with time zone", "-"]),
    ("c_int2vector", "int2vector", &["", "1 2 3"]),
    ("c_oidvector", "oidvector", &["", "1 4294967295"]),
    ("c_snapshot", "pg_snapshot", &["10:20:10,14", "1:1:"]),
    ("c_jsonpath", "jsonpath", &["$.a[*] ? (@ > 1)", "strict $"]),
];

/// What the types above need; every statement can be run in an empty database.
pub(super) const TYPES: &str = r#"
    CREATE EXTENSION citext SCHEMA public;
    CREATE EXTENSION hstore SCHEMA public;
"#;

/// Types that the program makes on the target by itself.
pub(super) const OWN_TYPES: &str = r#"
    CREATE TYPE public."Mood" AS ENUM ('sad', 'ok', 'Very ''Happy''');
    CREATE TYPE public.pair AS (label text, "Number" int);
    CREATE TYPE public.nest AS (inside public.pair, moods public."Mood"[], span int4range);
    CREATE DOMAIN public.even AS int CHECK (VALUE % 2 = 0);
    CREATE DOMAIN public.short AS varchar(5);
    CREATE DOMAIN public.evens AS int[] CHECK (VALUE IS NOT NULL);
"#;
