//! Grants, of whatever object: as the catalogs hold them (an ordered list), and the statements that make the same list again. Pure.

use serde::{Deserialize, Serialize};

use crate::model::quote_ident;

/// SQL that gives an `aclitem[]` as JSON: NULL stays NULL, an item with several privileges becomes several entries in a row.
macro_rules! acl {
    ($acl:literal) => {
        concat!(
            "CASE WHEN ",
            $acl,
            " IS NOT NULL THEN coalesce((SELECT json_agg(json_build_object(\
               'grantor', pg_get_userbyid(x.grantor), 'may_act', pg_has_role(x.grantor, 'MEMBER'), \
               'grantee', CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee) END, \
               'privilege', x.privilege, 'grantable', x.grantable) ORDER BY x.n) \
               FROM aclexplode(",
            $acl,
            ") WITH ORDINALITY AS x(grantor, grantee, privilege, grantable, n)), '[]') END"
        )
    };
}
pub(super) use acl;

/// One privilege of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who gave it.
    pub grantor: String,
    /// We are a member of the grantor, so we can give in its name.
    pub may_act: bool,
    /// Who has it; `None` is PUBLIC.
    pub grantee: Option<String>,
    /// `SELECT`, `UPDATE` …
    pub privilege: String,
    /// With grant option.
    pub grantable: bool,
}

/// The grants of one object, and what it would have without any.
#[derive(Debug, Clone)]
pub(super) struct Acl<'a> {
    /// `None`: never changed, the owner has everything.
    pub(super) grants: Option<&'a [Grant]>,
    /// What the owner has when nothing was ever granted or revoked.
    pub(super) standard: &'a [Grant],
    /// What ALTER DEFAULT PRIVILEGES puts on an object that our role makes.
    pub(super) preset: &'a [Grant],
    /// The owner.
    pub(super) owner: &'a str,
}

impl Acl<'_> {
    /// The grants can only be made at the exchange: the owner has less than everything, which our replay still needs, or another role
    /// grants, which may have no right on the shadow's schema.
    pub(super) fn waits_for_exchange(&self) -> bool {
        let Some(grants) = self.grants else { return false };
        !self.owner_has_all(grants) || grants.iter().any(|grant| grant.grantor != self.owner)
    }

    fn owner_has_all(&self, grants: &[Grant]) -> bool {
        self.standard
            .iter()
            .all(|one| grants.iter().any(|g| g.grantee == one.grantee && g.privilege == one.privilege))
    }

    /// Makes the list on `object` (`TABLE repcloud.t`), which our role has just made. Order is kept: pg_dump prints in it.
    pub(super) fn statements(&self, object: &str) -> Vec<String> {
        let wanted = match self.grants {
            None if self.preset.is_empty() => return Vec::new(),
            grants => grants.unwrap_or(self.standard),
        };
        let mut statements = Vec::new();
        let owner_first = wanted.first().is_some_and(|g| g.grantee.as_deref() == Some(self.owner));
        let as_born = self.preset.is_empty() && owner_first && self.owner_has_all(wanted);
        if !as_born {
            let mut gone: Vec<String> =
                self.preset.iter().filter(|g| g.grantee.as_deref() != Some(self.owner)).map(role).collect();
            gone.dedup();
            gone.push(quote_ident(self.owner));
            statements.push(format!("REVOKE ALL ON {object} FROM {}", gone.join(", ")));
        }
        for item in items(wanted) {
            if as_born && item[0].grantee.as_deref() == Some(self.owner) {
                continue;
            }
            statements.extend(give(item, object, None, self.owner));
        }
        statements
    }
}

/// Makes a column's grants on `object`. A column is born without any.
pub(super) fn column_statements(grants: &[Grant], column: &str, object: &str, owner: &str) -> Vec<String> {
    items(grants).flat_map(|item| give(item, object, Some(column), owner)).collect()
}

/// The entries of one aclitem: same grantor and grantee.
fn items(grants: &[Grant]) -> impl Iterator<Item = &[Grant]> {
    grants.chunk_by(|a, b| a.grantor == b.grantor && a.grantee == b.grantee)
}

fn role(grant: &Grant) -> String {
    grant.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), quote_ident)
}

fn give(item: &[Grant], object: &str, column: Option<&str>, owner: &str) -> Vec<String> {
    let mut statements = Vec::new();
    for grantable in [false, true] {
        let privileges: Vec<String> = item
            .iter()
            .filter(|grant| grant.grantable == grantable)
            .map(|grant| match column {
                Some(column) => format!("{} ({})", grant.privilege, quote_ident(column)),
                None => grant.privilege.clone(),
            })
            .collect();
        let Some(first) = item.first().filter(|_| !privileges.is_empty()) else { continue };
        let option = if grantable { " WITH GRANT OPTION" } else { "" };
        let grant = format!("GRANT {} ON {object} TO {}{option}", privileges.join(", "), role(first));
        if first.grantor == owner {
            statements.push(grant);
        } else {
            statements.push(format!("SET LOCAL ROLE {}; {grant}; RESET ROLE", quote_ident(&first.grantor)));
        }
    }
    statements
}

/// A grant that we could not make again, if there is one: by a role we are not a member of.
pub(super) fn foreign_grantor<'a>(grants: &'a [Grant], owner: &str) -> Option<&'a Grant> {
    grants.iter().find(|grant| grant.grantor != owner && !grant.may_act)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(grantor: &str, grantee: Option<&str>, privilege: &str, grantable: bool) -> Grant {
        Grant {
            grantor: grantor.into(),
            may_act: true,
            grantee: grantee.map(Into::into),
            privilege: privilege.into(),
            grantable,
        }
    }

    fn acl<'a>(grants: Option<&'a [Grant]>, standard: &'a [Grant], preset: &'a [Grant]) -> Acl<'a> {
        Acl { grants, standard, preset, owner: "app" }
    }

    #[test]
    fn nothing_granted_needs_nothing() {
        let standard = [grant("app", Some("app"), "SELECT", false)];
        assert!(acl(None, &standard, &[]).statements("TABLE t").is_empty());
    }

    #[test]
    fn default_privileges_are_taken_away() {
        let standard = [grant("app", Some("app"), "SELECT", false)];
        let preset = [standard[0].clone(), grant("app", None, "SELECT", false)];
        assert_eq!(
            acl(None, &standard, &preset).statements("TABLE t"),
            ["REVOKE ALL ON TABLE t FROM PUBLIC, app", "GRANT SELECT ON TABLE t TO app"]
        );
    }

    #[test]
    fn grants_keep_their_order_and_options() {
        let standard = [grant("app", Some("app"), "SELECT", false)];
        let grants = [
            standard[0].clone(),
            grant("app", Some("Big Role"), "SELECT", true),
            grant("app", Some("Big Role"), "UPDATE", false),
            grant("Big Role", None, "SELECT", false),
        ];
        let acl = acl(Some(&grants), &standard, &[]);
        assert!(acl.waits_for_exchange());
        assert_eq!(
            acl.statements("TABLE t"),
            [
                "GRANT UPDATE ON TABLE t TO \"Big Role\"",
                "GRANT SELECT ON TABLE t TO \"Big Role\" WITH GRANT OPTION",
                "SET LOCAL ROLE \"Big Role\"; GRANT SELECT ON TABLE t TO PUBLIC; RESET ROLE",
            ]
        );
    }

    #[test]
    fn an_owner_without_a_right_loses_it_at_the_exchange() {
        let standard =
            [grant("app", Some("app"), "SELECT", false), grant("app", Some("app"), "UPDATE", false)];
        let acl = acl(Some(&standard[..1]), &standard, &[]);
        assert!(acl.waits_for_exchange());
        assert_eq!(
            acl.statements("TABLE t"),
            ["REVOKE ALL ON TABLE t FROM app", "GRANT SELECT ON TABLE t TO app"]
        );
    }
}
