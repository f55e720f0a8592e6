//! Private servers for a test: a source and a target.

use repcloud::cluster::{Cluster, ClusterBuilder};

/// The major version tests run on: `REPCLOUD_TEST_PG_MAJOR`, else 15.
pub(crate) fn major() -> u32 {
    std::env::var("REPCLOUD_TEST_PG_MAJOR")
        .map_or(15, |text| text.parse().expect("REPCLOUD_TEST_PG_MAJOR is a number"))
}

/// Options for one server as tests want it; add settings and call `start()`.
///
/// Autovacuum is off: what a test sees must come from the test.
pub(crate) fn builder(name: &str) -> ClusterBuilder {
    ClusterBuilder::new(name).major(major()).setting("autovacuum", "off")
}

/// A source and a target, each of its own; both go when the pair is dropped.
pub(crate) struct Pair {
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
}

impl Pair {
    /// Starts both with default settings.
    pub(crate) fn start() -> Self {
        Self::start_with(builder("source"), builder("target"))
    }

    /// Starts both, side by side, with the options given.
    pub(crate) fn start_with(source: ClusterBuilder, target: ClusterBuilder) -> Self {
        std::thread::scope(|scope| {
            let target = scope.spawn(|| target.start().expect("the target server starts"));
            let source = source.start().expect("the source server starts");
            Self { source, target: target.join().expect("the target server starts") }
        })
    }

    /// Makes a database of this name on both.
    pub(crate) fn create_database(&self, name: &str) {
        self.source.create_database(name).expect("database on the source");
        self.target.create_database(name).expect("database on the target");
    }
}
