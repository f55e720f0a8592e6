//! Text or binary COPY; pure.

use crate::catalog::ColumnDef;
use crate::model::Oid;

/// Format of a COPY, the same on both sides: the bytes pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Text, as the sessions' pinned settings print it.
    Text,
    /// Binary. About 1.6 times as fast as text for rows of numbers, times, text and jsonb (PostgreSQL 15): the
    /// servers neither print nor parse.
    Binary,
}

impl CopyFormat {
    /// As COPY's option.
    pub fn option(self) -> &'static str {
        match self {
            CopyFormat::Text => "text",
            CopyFormat::Binary => "binary",
        }
    }
}

/// Built-in types whose binary form means the same on every server. Left out on purpose: types that hold oids of
/// other objects (`regclass`, `aclitem`), `money` (its scale is a setting), `xml` (its binary form carries an
/// encoding declaration), and everything that is made in a database (enums, domains, composites: oids differ).
const SAFE: &[Oid] = &[
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 199, 600, 601, 602, 603, 604, 628, 650, 651, 700, 701, 718, 774,
    829, 869, 1000, 1001, 1002, 1003, 1005, 1007, 1009, 1014, 1015, 1016, 1021, 1022, 1028, 1041, 1042, 1043,
    1082, 1083, 1114, 1115, 1182, 1183, 1184, 1185, 1186, 1187, 1231, 1266, 1270, 1560, 1561, 1562, 1563,
    1700, 2950, 2951, 3220, 3614, 3615, 3802, 3807, 3904, 3906, 3908, 3910, 3912, 3926, 4072, 4451, 4532,
    4533, 4534, 4535, 4536,
];

/// Binary where each column has the same, safe type on both sides and the servers are of one major version (a
/// newer one may send a value that an older one takes for another: infinite intervals), else text.
///
/// `columns`: each copied column on the source and on the target. Versions are `server_version_num`.
pub fn choose_format(columns: &[(&ColumnDef, &ColumnDef)], source: i32, target: i32) -> CopyFormat {
    let safe = |(from, to): &(&ColumnDef, &ColumnDef)| {
        from.type_oid == to.type_oid && SAFE.binary_search(&from.type_oid).is_ok()
    };
    let same_major = source / 10_000 == target / 10_000;
    if same_major && columns.iter().all(safe) { CopyFormat::Binary } else { CopyFormat::Text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::IdentityKind;

    fn column(type_oid: Oid) -> ColumnDef {
        ColumnDef {
            name: "c".into(),
            attnum: 1,
            type_modifier: -1,
            type_oid,
            type_sql: String::new(),
            input_type_sql: String::new(),
            has_equality: true,
            collation: None,
            not_null: false,
            default: None,
            generated: None,
            identity: IdentityKind::None,
        }
    }

    #[test]
    fn binary_only_where_both_sides_mean_the_same() {
        assert!(SAFE.is_sorted());
        let (int, text, user, money) = (column(23), column(25), column(16_500), column(790));
        for (pairs, source, target, format) in [
            (vec![(&int, &int), (&text, &text)], 150_019, 150_002, CopyFormat::Binary),
            (vec![(&int, &int)], 150_019, 160_002, CopyFormat::Text),
            (vec![(&int, &text)], 150_019, 150_019, CopyFormat::Text),
            (vec![(&int, &int), (&user, &user)], 150_019, 150_019, CopyFormat::Text),
            (vec![(&money, &money)], 150_019, 150_019, CopyFormat::Text),
        ] {
            assert_eq!(choose_format(&pairs, source, target), format);
        }
    }
}
