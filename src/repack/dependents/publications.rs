//! Publications the table is in. FOR TABLE: exchanged with column list and row filter; IN SCHEMA: nothing to do, the schema stays; ALL TABLES:
//! refused, because it publishes the shadow's rows too, and a subscriber has no table for them. Pure.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::quote_ident;
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};

pub(super) const KIND: Kind = Kind {
    title: "publications FOR TABLE with column lists and row filters, and FOR TABLES IN SCHEMA",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. Column lists and filters exist from PostgreSQL 15 on, so they are asked for as JSON.
pub(super) const QUERY: &str = "SELECT p.oid::int8 AS oid, p.pubname AS name, pg_get_userbyid(p.pubowner) AS owner, \
       pg_has_role(p.pubowner, 'USAGE') AS may_alter, r.oid::int8 AS member, \
       CASE WHEN p.puballtables THEN 'all' WHEN r.oid IS NULL THEN 'schema' ELSE 'table' END AS scope, \
       CASE WHEN to_jsonb(r) ->> 'prattrs' IS NOT NULL THEN to_jsonb(t) -> 'attnames' END AS columns, \
       to_jsonb(t) ->> 'rowfilter' AS filter \
     FROM pg_publication p JOIN pg_class c ON c.oid = $1 JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid \
     LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = n.nspname \
       AND t.tablename = c.relname \
     WHERE p.puballtables OR r.oid IS NOT NULL OR t.pubname IS NOT NULL ORDER BY p.pubname";

/// One publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Oid of the table's membership, for one FOR TABLE.
    pub member: Option<u32>,
    /// How the table is in it.
    pub scope: PublicationScope,
    /// Its column list.
    pub columns: Option<Vec<String>>,
    /// Its row filter.
    pub filter: Option<String>,
}

/// How a table is in a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicationScope {
    /// FOR TABLE.
    Table,
    /// FOR TABLES IN SCHEMA.
    Schema,
    /// FOR ALL TABLES.
    All,
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for publication in &inventory.publications {
        let object = format!("publication {}", quote_ident(&publication.name));
        match publication.scope {
            PublicationScope::All => refusals.push(
                Refusal::new(
                    &object,
                    "it is FOR ALL TABLES and would publish the rows of the table being built, for which a subscriber has no table",
                )
                .remedy("publish FOR TABLE or FOR TABLES IN SCHEMA instead"),
            ),
            PublicationScope::Table if !publication.may_alter => {
                refusals.push(Refusal::without_rights(&object, "it belongs", &publication.owner, &role));
            }
            PublicationScope::Table | PublicationScope::Schema => {}
        }
    }
}

fn claims(inventory: &Inventory, dependent: &Dependent) -> bool {
    dependent.class == "pg_publication_rel"
        && inventory.publications.iter().any(|publication| publication.member == Some(dependent.oid))
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for publication in inventory.publications.iter().filter(|p| p.scope == PublicationScope::Table) {
        let name = quote_ident(&publication.name);
        let columns = publication.columns.as_ref().map_or_else(String::new, |columns| {
            format!(" ({})", columns.iter().map(|column| quote_ident(column)).collect::<Vec<_>>().join(", "))
        });
        let filter =
            publication.filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE ({filter})"));
        draft.exchange(Phase::Publish, format!("ALTER PUBLICATION {name} DROP TABLE ONLY {}", draft.old));
        let table = &inventory.table;
        draft.exchange(
            Phase::Publish,
            format!("ALTER PUBLICATION {name} ADD TABLE ONLY {table}{columns}{filter}"),
        );
        draft.forecast_ms += 0.4;
    }
    Ok(())
}
