//! Which target table a source table's changes go to, and in which columns. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::apply::checkpoint::StreamKey;
use crate::model::{Lsn, Oid, Relation, TableName};
use crate::sql::shape::ShapeTable;

pub use crate::apply::shape_error::ShapeError;

/// Index of a route in its [`RouteTable`].
pub type RouteId = usize;

/// What happens to a target row when its source row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is deleted.
    Dml,
    /// It is kept and stamped with the time of the deletion.
    LogDel,
}

/// What to do about a row that is missing or already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Record it and stop.
    Stop,
    /// Record it and leave the change out.
    Log,
    /// Record it and make the target row what the source row is.
    Overwrite,
}

/// One column of the source as it was when the target was set up or last accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ShapeFingerprint {
    /// Name.
    pub name: String,
    /// Type on the source.
    pub type_oid: Oid,
    /// Type modifier.
    pub type_modifier: i32,
    /// `pg_attribute.attnum`: stays the same when the column is renamed; 0 when it is not known.
    #[serde(default)]
    pub attnum: i16,
    /// A person has accepted the target as it is (`reset --accept-target`): another type, or none, is no change.
    #[serde(default)]
    pub accepted: bool,
}

/// One source table (or all leaves of one partitioned table) feeding one target table.
#[derive(Debug, Clone)]
pub struct Route {
    /// The configured source table, for messages.
    pub source: TableName,
    /// The published tables whose changes go here: the source table, or its leaf partitions.
    pub published: Vec<TableName>,
    /// The target table, for messages.
    pub target: TableName,
    /// The target as statements see it: replicated columns, key, logdel column.
    pub shape: ShapeTable,
    /// Remove or stamp.
    pub delivery: Delivery,
    /// Policy for conflicts.
    pub on_conflict: OnConflict,
    /// Changes of transactions that committed before this position are in the copied rows already.
    pub copied_at: Lsn,
    /// The source's columns when the rows were copied; `None` accepts what comes first.
    pub known_columns: Option<Vec<ShapeFingerprint>>,
    /// `columns` was configured: source columns outside it are left out on purpose.
    pub columns_chosen: bool,
    /// The target has columns that are not replicated: a row must then never be deleted and inserted to change its
    /// key, its other columns would be lost.
    pub has_extra_columns: bool,
    /// The key has a column GENERATED ALWAYS AS IDENTITY: it cannot be updated in place.
    pub identity_always_key: bool,
    /// Bulk inserts may use COPY (no rules, not logdel).
    pub copy_allowed: bool,
    /// A changed row may be deleted and inserted anew: nothing of it is lost by that, and nothing on the target reacts
    /// to the delete.
    pub replace_allowed: bool,
    /// Some constraint of the target is deferrable.
    pub has_deferrable: bool,
    /// Columns the target computes itself, or that are gone from both sides and may still be in changes on their way:
    /// a source column of that name is not missing.
    pub ignored_columns: Vec<String>,
    /// `(before, now)`: source columns renamed since the copy. Changes on their way bear the old name.
    pub former_names: Vec<(String, String)>,
}

/// A target table that waits beside the stream: its changes are kept in `repcloud.parked`.
#[derive(Debug, Clone)]
pub struct ParkedRoute {
    /// Whose.
    pub key: StreamKey,
    /// The published tables whose changes wait for it.
    pub published: Vec<TableName>,
    /// The target table.
    pub target: TableName,
}

/// Marks a target column the source does not send.
const ABSENT: u16 = u16::MAX;

/// A route together with one description of its source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The route.
    pub route: RouteId,
    /// For each replicated target column: its index in the relation, or [`ABSENT`].
    source_index: Box<[u16]>,
    /// Target columns the source sends.
    pub present: Vec<u16>,
    /// See [`Route::copied_at`].
    pub copied_at: Lsn,
}

impl Binding {
    /// Index of target column `column` in the relation; `None` when the source does not send it.
    pub fn source_index(&self, column: u16) -> Option<usize> {
        match self.source_index.get(usize::from(column)) {
            Some(&index) if index != ABSENT => Some(usize::from(index)),
            _ => None,
        }
    }
}

/// Checks `relation` against `route` and says where each target column's value is found.
pub fn bind(id: RouteId, route: &Route, relation: &Relation) -> Result<Binding, ShapeError> {
    let (source_table, target) = (route.source.clone(), route.target.clone());
    let in_target = |name: &str| route.shape.columns.iter().any(|c| c.name == name);
    // Where a target column's values are: under its name, or under the one it had before.
    let find = |name: &str| {
        let former = || {
            route
                .former_names
                .iter()
                .filter(|(_, now)| now == name)
                .find_map(|(old, _)| relation.column_index(old))
        };
        relation.column_index(name).or_else(former)
    };
    for column in &relation.columns {
        let ignored = route.columns_chosen
            || route.ignored_columns.contains(&column.name)
            || route.former_names.iter().any(|(old, _)| *old == column.name);
        if !in_target(&column.name) && !ignored {
            return Err(ShapeError::ColumnAdded { source_table, target, column: column.name.clone() });
        }
    }
    for known in route.known_columns.iter().flatten().filter(|k| !k.accepted && in_target(&k.name)) {
        match find(&known.name).and_then(|i| relation.columns.get(i)) {
            None => {
                return Err(ShapeError::ColumnDropped { source_table, target, column: known.name.clone() });
            }
            Some(c) if (c.type_oid, c.type_modifier) != (known.type_oid, known.type_modifier) => {
                return Err(ShapeError::TypeChanged { source_table, target, column: known.name.clone() });
            }
            Some(_) => {}
        }
    }
    let source_index: Box<[u16]> = route
        .shape
        .columns
        .iter()
        .map(|c| find(&c.name).and_then(|i| u16::try_from(i).ok()).unwrap_or(ABSENT))
        .collect();
    if let Some(&key) = route.shape.key.iter().find(|&&k| source_index[usize::from(k)] == ABSENT) {
        let column = route.shape.columns[usize::from(key)].name.clone();
        return Err(ShapeError::KeyMissing { source_table, target, column });
    }
    let present =
        (0..source_index.len() as u16).filter(|&c| source_index[usize::from(c)] != ABSENT).collect();
    Ok(Binding { route: id, source_index, present, copied_at: route.copied_at })
}

/// All routes of one stream.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    by_published: HashMap<TableName, Vec<RouteId>>,
    /// Changes committed by route, for those who watch.
    committed: Vec<AtomicU64>,
    parked: Vec<ParkedRoute>,
}

impl RouteTable {
    /// Indexes `routes` by what is published.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut by_published: HashMap<TableName, Vec<RouteId>> = HashMap::new();
        for (id, route) in routes.iter().enumerate() {
            for name in &route.published {
                by_published.entry(name.clone()).or_default().push(id);
            }
        }
        let committed = routes.iter().map(|_| AtomicU64::new(0)).collect();
        RouteTable { routes, by_published, committed, parked: Vec::new() }
    }

    /// The same with tables whose changes are only kept.
    pub fn with_parked(self, parked: Vec<ParkedRoute>) -> Self {
        RouteTable { parked, ..self }
    }

    /// The tables whose changes are only kept.
    pub fn parked(&self) -> &[ParkedRoute] {
        &self.parked
    }

    /// The route with this id. Ids come from this table only.
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id]
    }

    /// Adds committed changes, by route.
    pub fn count(&self, changes: &[u64]) {
        for (sum, change) in self.committed.iter().zip(changes) {
            sum.fetch_add(*change, Ordering::Relaxed);
        }
    }

    /// Changes committed since this table was made.
    pub fn counted(&self, id: RouteId) -> u64 {
        self.committed.get(id).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }

    /// All routes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The routes a published table feeds; empty when none does.
    fn of(&self, name: &TableName) -> &[RouteId] {
        self.by_published.get(name).map_or(&[], Vec::as_slice)
    }

    /// True when `relations` (of one TRUNCATE) are all the tables that feed route `id`.
    pub fn covers(&self, id: RouteId, relations: &[Arc<Relation>]) -> bool {
        self.routes[id].published.iter().all(|p| relations.iter().any(|r| r.name == *p))
    }
}

/// The bindings of the relations seen so far. A relation that is described anew, with another shape, is bound anew.
#[derive(Debug, Default)]
pub struct Bindings {
    /// By oid: the assembler keeps the same `Arc` while the shape is the same.
    by_oid: HashMap<Oid, Described, foldhash::fast::FixedState>,
}

/// A description and what it feeds.
type Described = (Arc<Relation>, Bound);

/// What a relation feeds.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The routes it fits.
    pub bindings: Arc<[Binding]>,
    /// Indexes into [`RouteTable::parked`].
    pub parked: Arc<[usize]>,
    /// The routes it does not fit, with their `copied_at`: no matter for changes that the copy holds already.
    misfits: Arc<[(Lsn, ShapeError)]>,
}

impl Bound {
    /// An error when a change of the transaction that committed at `commit` would have to go to a route that the
    /// relation does not fit.
    pub fn check(&self, commit: Lsn) -> Result<(), ShapeError> {
        match self.misfits.iter().find(|(copied_at, _)| commit >= *copied_at) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl Bindings {
    /// What `relation` feeds; nothing when nothing is routed from it.
    pub fn get(&mut self, routes: &RouteTable, relation: &Arc<Relation>) -> Bound {
        if let Some((known, bound)) = self.by_oid.get(&relation.oid)
            && (Arc::ptr_eq(known, relation) || known == relation)
        {
            return bound.clone();
        }
        let (mut bindings, mut misfits) = (Vec::new(), Vec::new());
        for &id in routes.of(&relation.name) {
            let route = routes.route(id);
            match bind(id, route, relation) {
                Ok(binding) => bindings.push(binding),
                Err(error) => misfits.push((route.copied_at, error)),
            }
        }
        let waits =
            |(id, route): (usize, &ParkedRoute)| route.published.contains(&relation.name).then_some(id);
        let parked = routes.parked().iter().enumerate().filter_map(waits).collect();
        let bound = Bound { bindings: bindings.into(), parked, misfits: misfits.into() };
        self.by_oid.insert(relation.oid, (relation.clone(), bound.clone()));
        bound
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{RelationColumn, ReplicaIdentity};
    use crate::sql::shape::ShapeColumn;

    pub(crate) fn route(columns: &[&str], key: &[u16], delivery: Delivery) -> Route {
        Route {
            source: TableName::new("public", "t"),
            published: vec![TableName::new("public", "t")],
            target: TableName::new("public", "t"),
            shape: ShapeTable {
                sql_name: "public.t".into(),
                columns: columns
                    .iter()
                    .map(|n| ShapeColumn { name: (*n).into(), input_type: "text".into(), rewrite: None })
                    .collect(),
                key: key.to_vec(),
                deleted_column: (delivery == Delivery::LogDel).then(|| "deleted".into()),
                fixed_key: false,
            },
            delivery,
            on_conflict: OnConflict::Stop,
            copied_at: Lsn::INVALID,
            known_columns: None,
            columns_chosen: false,
            has_extra_columns: false,
            identity_always_key: false,
            copy_allowed: false,
            replace_allowed: true,
            has_deferrable: false,
            ignored_columns: Vec::new(),
            former_names: Vec::new(),
        }
    }

    pub(crate) fn relation(columns: &[&str], key: &[usize]) -> Arc<Relation> {
        Arc::new(Relation {
            oid: 1,
            name: TableName::new("public", "t"),
            identity: ReplicaIdentity::Default,
            columns: columns
                .iter()
                .enumerate()
                .map(|(i, n)| RelationColumn {
                    name: (*n).into(),
                    type_oid: 25,
                    type_modifier: -1,
                    in_identity: key.contains(&i),
                })
                .collect(),
        })
    }

    fn known(columns: &[&str]) -> Option<Vec<ShapeFingerprint>> {
        Some(
            columns
                .iter()
                .map(|n| ShapeFingerprint {
                    name: (*n).into(),
                    type_oid: 25,
                    type_modifier: -1,
                    attnum: 0,
                    accepted: false,
                })
                .collect(),
        )
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let bound = bind(0, &route(&["a", "b"], &[0], Delivery::Dml), &relation(&["b", "a"], &[1])).unwrap();
        assert_eq!((bound.source_index(0), bound.source_index(1)), (Some(1), Some(0)));
        assert_eq!(bound.present, [0, 1]);
    }

    #[test]
    fn a_column_of_the_target_alone_is_left_alone() {
        let bound = bind(0, &route(&["a", "extra"], &[0], Delivery::Dml), &relation(&["a"], &[0])).unwrap();
        assert_eq!((bound.source_index(1), bound.present.as_slice()), (None, &[0][..]));
    }

    #[test]
    fn a_changed_shape_is_named() {
        let mut r = route(&["a", "b"], &[0], Delivery::Dml);
        r.known_columns = known(&["a", "b"]);
        let error = |r: &Route, rel: &Relation| bind(0, r, rel).unwrap_err();
        assert!(
            matches!(error(&r, &relation(&["a", "b", "c"], &[0])), ShapeError::ColumnAdded { column, .. } if column == "c")
        );
        assert!(
            matches!(error(&r, &relation(&["a"], &[0])), ShapeError::ColumnDropped { column, .. } if column == "b")
        );
        let mut retyped = (*relation(&["a", "b"], &[0])).clone();
        retyped.columns[1].type_oid = 23;
        assert!(matches!(error(&r, &retyped), ShapeError::TypeChanged { column, .. } if column == "b"));
        r.known_columns = None;
        assert!(
            matches!(error(&r, &relation(&["b"], &[0])), ShapeError::KeyMissing { column, .. } if column == "a")
        );
    }

    #[test]
    fn chosen_columns_leave_the_others_out() {
        let mut r = route(&["a"], &[0], Delivery::Dml);
        r.columns_chosen = true;
        assert!(bind(0, &r, &relation(&["a", "b"], &[0])).is_ok());
    }

    #[test]
    fn a_relation_described_anew_is_bound_anew() {
        let routes = RouteTable::new(vec![route(&["a", "b"], &[0], Delivery::Dml)]);
        let mut bindings = Bindings::default();
        let mut get = |relation| bindings.get(&routes, &relation);
        assert_eq!(get(relation(&["a", "b"], &[0])).bindings[0].source_index(1), Some(1));
        assert_eq!(get(relation(&["b", "a"], &[1])).bindings[0].source_index(1), Some(0));
        let bound = get(relation(&["b", "a", "c"], &[1]));
        assert!(bound.bindings.is_empty() && bound.check(Lsn(1)).is_err());
    }

    #[test]
    fn a_misfit_is_no_matter_before_the_copy() {
        let mut late = route(&["a"], &[0], Delivery::Dml);
        late.copied_at = Lsn(100);
        let bound = Bindings::default().get(&RouteTable::new(vec![late]), &relation(&["a", "b"], &[0]));
        assert_eq!(bound.check(Lsn(99)), Ok(()));
        assert!(bound.check(Lsn(100)).is_err());
    }

    #[test]
    fn a_renamed_column_is_found_under_its_old_name() {
        let mut r = route(&["a", "new"], &[0], Delivery::Dml);
        r.former_names = vec![("old".into(), "new".into())];
        r.known_columns = known(&["a", "old"]);
        let find = |columns: &[&str]| bind(0, &r, &relation(columns, &[0])).unwrap().source_index(1);
        assert_eq!((find(&["a", "old"]), find(&["new", "a"])), (Some(1), Some(0)));
    }

    #[test]
    fn an_accepted_shape_may_lack_a_column_or_have_another_type() {
        let mut r = route(&["a", "b", "c"], &[0], Delivery::Dml);
        let accepted = |k: ShapeFingerprint| ShapeFingerprint { accepted: true, type_oid: 23, ..k };
        r.known_columns = known(&["a", "b", "c"]).map(|k| k.into_iter().map(accepted).collect());
        assert_eq!(bind(0, &r, &relation(&["a", "b"], &[0])).unwrap().present, [0, 1]);
    }
}
