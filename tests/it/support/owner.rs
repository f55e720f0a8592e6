//! A database and a role that owns tables in it, and is no superuser: who repacks.

use repcloud::cluster::{Cluster, ClusterBuilder};
use repcloud::model::TableName;
use repcloud::pg::{self, ConnectOptions, Session};
use repcloud::repack::options::{RepackOptions, RepackSettings, RunOptions, Selection, TableRules};
use repcloud::repack::preflight::Finding;
use repcloud::repack::select::{TableFacts, select};

use super::cluster::builder;
use super::db::Db;

/// One server; database `shop` with role `app`, which has REPLICATION and CREATE, and a session of each kind.
pub(crate) struct Owner {
    pub(crate) cluster: Cluster,
    pub(crate) admin: Db,
    /// As `app`, unpinned.
    pub(crate) app: Db,
    /// As `app`, as the program opens it.
    pub(crate) session: Session,
    pub(crate) options: RepackOptions,
}

impl Owner {
    pub(crate) async fn start() -> Self {
        Self::over(builder("owner")).await
    }

    pub(crate) async fn over(builder: ClusterBuilder) -> Self {
        let cluster = builder.start().expect("the server starts");
        cluster.create_database("shop").expect("database shop");
        let admin = Db::connect(&cluster, "shop").await;
        admin
            .exec(
                "CREATE ROLE app LOGIN REPLICATION; GRANT CREATE ON DATABASE shop TO app; \
                 GRANT CREATE ON SCHEMA public TO app",
            )
            .await;
        let app = Db::connect_to(&cluster.conninfo("shop").replace("user=postgres", "user=app")).await;
        let connect =
            ConnectOptions::new(cluster.socket_dir().display().to_string(), cluster.port(), "app", "shop");
        let session = pg::connect(&connect).await.expect("app logs in");
        let options = RepackOptions {
            connection: "prod".to_owned(),
            connect,
            selection: Selection::default(),
            settings: RepackSettings::default(),
            run: RunOptions::default(),
            rules: TableRules::default(),
        };
        Owner { cluster, admin, app, session, options }
    }

    /// What the selection says about one table of schema public.
    pub(crate) async fn table(&self, name: &str) -> TableFacts {
        let selection = Selection { tables: vec![TableName::new("public", name)], ..Selection::default() };
        let chosen =
            select(&self.session, &selection, &self.options.rules).await.expect("the table is there");
        chosen.tables.into_iter().next().expect("it was named")
    }
}

/// Findings as text, one a line.
pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{:?} {}: {finding}", finding.severity, finding.check)).collect()
}
