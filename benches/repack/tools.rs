//! The contenders.

/// A way to get rid of bloat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// The server's own, with the table locked all the time.
    VacuumFull,
    /// The extension and its client, as Debian packs them.
    PgRepack,
    /// The Python tool this project began from, 0.1a1.
    OldRepcloud,
    /// Ours with `--jobs 1`.
    Jobs1,
    /// Ours with `--jobs 2`.
    Jobs2,
}

/// In the order of the report.
pub(crate) const ALL: [Tool; 5] =
    [Tool::VacuumFull, Tool::PgRepack, Tool::OldRepcloud, Tool::Jobs1, Tool::Jobs2];

impl Tool {
    /// As `--only` and databases name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::VacuumFull => "vacuum_full",
            Tool::PgRepack => "pg_repack",
            Tool::OldRepcloud => "old_repcloud",
            Tool::Jobs1 => "jobs1",
            Tool::Jobs2 => "jobs2",
        }
    }

    /// As the report names it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Tool::VacuumFull => "VACUUM FULL",
            Tool::PgRepack => "pg_repack",
            Tool::OldRepcloud => "repcloud 0.1a1 (Python)",
            Tool::Jobs1 => "repcloud --jobs 1",
            Tool::Jobs2 => "repcloud --jobs 2",
        }
    }

    /// Its bars.
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Tool::VacuumFull => "#9aa5b1",
            Tool::PgRepack => "#4c78a8",
            Tool::OldRepcloud => "#b279a2",
            Tool::Jobs1 => "#f4a582",
            Tool::Jobs2 => "#e4572e",
        }
    }
}
