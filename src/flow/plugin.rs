//! Which output plugin a stream reads with, what that plugin cannot carry, and what it is asked for.

use crate::apply::route::RouteTable;
use crate::capture::auto::{self, Asked, Way};
use crate::capture::reading::{Numbers, Plugin, Reading};
use crate::capture::trigger::stream_ticks;
use crate::capture::{publish, setup, wal2json};
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::options::StreamOptions;
use crate::flow::prepare::Preparation;
use crate::flow::start::SlotPlace;
use crate::flow::work::TableWork;
use crate::model::{Events, TableName};
use crate::pg::Session;

/// Why an entry's condition goes with pgoutput only.
pub(crate) const CONDITION: &str = "its `condition` is a row filter of the publication, which wal2json does not read; set plugin = \"pgoutput\"";

/// How the stream reads already, or is told to: what needs no trial. `None`: it has not begun, and may go any way.
pub(crate) async fn decided(options: &StreamOptions, source: &Session) -> Result<Option<Way>, FlowError> {
    let capture = options.capture;
    if capture.asked == Asked::Trigger {
        return Ok(Some(Way::Triggers));
    }
    let slot = facts::read_slot(source, &options.slot()).await?.map(|slot| slot.facts);
    let configured = Way::Slot(capture.plugin.unwrap_or_default());
    match slot {
        // With a slot of another plugin than the configured one, `start` stops.
        Some(slot) if slot.place == SlotPlace::Here => {
            let plugin = capture.plugin.or_else(|| Plugin::from_name(&slot.plugin));
            Ok(Some(Way::Slot(plugin.unwrap_or_default())))
        }
        _ if capture.asked == Asked::Slot => Ok(Some(configured)),
        _ if stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? => {
            Ok(Some(Way::Triggers))
        }
        // The name is taken: `start` says by whom, and nobody finds himself reading triggers for it.
        Some(_) => Ok(Some(configured)),
        None => Ok(None),
    }
}

/// How to read: as the stream does already, as configured, or in the first way that the server lets us go.
pub(crate) async fn choose(
    options: &StreamOptions,
    source: &Session,
    events: &Events,
) -> Result<Way, FlowError> {
    if let Some(way) = decided(options, source).await? {
        return Ok(way);
    }
    let capture = options.capture;
    // What can be read need not be tried.
    let findings = publish::check_source(&setup::read_source(source).await?, 1);
    if !findings.is_empty() {
        for finding in findings {
            events.warning(format!("passed over, source: a slot: {finding}"));
        }
        return Ok(Way::Triggers);
    }
    let choice = auto::choose(&options.source, &capture.ways()).await.map_err(FlowError::Source)?;
    let why = choice.passed_over.iter().map(|p| format!("source: {p}"));
    match choice.way {
        Some(way) => {
            for why in why {
                events.warning(format!("passed over, {why}"));
            }
            Ok(way)
        }
        None => Err(FlowError::Refused(why.collect())),
    }
}

/// The options with the way that the stream goes already, whatever is configured: for who acts on it from outside.
pub(crate) async fn as_it_reads(
    options: &StreamOptions,
    source: &Session,
) -> Result<StreamOptions, FlowError> {
    let mut options = options.clone();
    if stream_ticks::reads_any(source, &options.slot()).await.map_err(FlowError::Source)? {
        options.capture.asked = Asked::Trigger;
    }
    Ok(options)
}

/// The columns of the stream that wal2json before 2.6 may send as null, of the source tables `work`.
fn lossy_columns(work: &[TableWork]) -> Vec<String> {
    let of = |w: &TableWork| wal2json::lossy_columns(&w.source, w.entry.columns.as_deref());
    let mut columns: Vec<String> = work.iter().flat_map(of).collect();
    columns.sort();
    columns.dedup();
    columns
}

impl Preparation<'_> {
    /// What wal2json cannot carry is refused before anything is made.
    pub(crate) async fn check_plugin(&self, slot_there: bool) -> Result<(), FlowError> {
        if self.options.by_triggers() || self.options.plugin() != Plugin::Wal2json {
            return Ok(());
        }
        let mut findings = Vec::new();
        for work in self.work.iter().filter(|w| w.entry.condition.is_some()) {
            findings.push(publish::Finding::new(&work.source.name, CONDITION));
        }
        let encoding = "SELECT pg_catalog.getdatabaseencoding()::text";
        let row = self.source.query_one(encoding, &[]).await.map_err(|e| FlowError::Source(e.into()))?;
        let encoding: String = row.try_get(0).map_err(|e| FlowError::Source(e.into()))?;
        if encoding != "UTF8" {
            let problem = format!(
                "its encoding is {encoding}, and wal2json sends text in the database's encoding: only UTF8 can be read; set plugin = \"pgoutput\""
            );
            findings.push(publish::Finding::of_source(problem));
        }
        if !findings.is_empty() {
            return Err(FlowError::refused_by_source(&findings));
        }
        // The start of the stream asks too; before the slot is there, a temporary one is asked.
        if slot_there || self.options.capture.allow_lossy_numbers {
            return Ok(());
        }
        let columns = lossy_columns(&self.work);
        if columns.is_empty() {
            return Ok(());
        }
        match auto::wal2json_keeps_numbers(&self.options.source).await.map_err(FlowError::Source)? {
            Some(false) => Err(FlowError::Refused(vec![
                crate::capture::CaptureError::LossyNumbers { columns }.to_string(),
            ])),
            // It was not told in time: the start of the stream tells.
            Some(true) | None => Ok(()),
        }
    }
}

/// What the plugin is asked for. With wal2json: the tables that are routed.
pub(crate) async fn reading(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    routes: &RouteTable,
    publications: &[String],
) -> Result<Reading, FlowError> {
    if options.plugin() == Plugin::Pgoutput {
        return Ok(Reading::Pgoutput { publications: publications.to_vec(), messages: false });
    }
    let routed: Vec<&TableName> = routes
        .routes()
        .iter()
        .flat_map(|r| &r.published)
        .chain(routes.parked().iter().flat_map(|p| &p.published))
        .collect();
    let wanted: Vec<_> = work
        .iter()
        .flat_map(|w| {
            let storage =
                if w.leaves.is_empty() { std::slice::from_ref(&w.source) } else { w.leaves.as_slice() };
            storage.iter().map(|table| (table, w.entry.insert_only))
        })
        .filter(|(table, _)| routed.contains(&&table.name))
        .collect();
    let columns = lossy_columns(work);
    let numbers = match (columns.is_empty(), options.capture.allow_lossy_numbers) {
        (true, _) => Numbers::NotUsed,
        (false, true) => Numbers::MayBeLost,
        (false, false) => Numbers::Whole(columns),
    };
    Ok(Reading::Wal2json { tables: wal2json::known_tables(source, &wanted).await?, numbers })
}
