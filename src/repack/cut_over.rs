//! The attempts of the swap: when to try, how long to rest in between, what is said of those in the way.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::model::Oid;
use crate::repack::blockers::Blockers;
use crate::repack::error::RepackError;
use crate::repack::fill;
use crate::repack::runner::{Job, control_session};
use crate::repack::shadow::relation_oid;
use crate::repack::state;
use crate::repack::steps;
use crate::repack::swap::{self, Attempt, Outcome};

/// How long transactions with a snapshot from before the copy's end are waited for: they would see the table without rows.
const OLD_SNAPSHOTS: Duration = Duration::from_secs(30);
/// The longest rest between two attempts.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// Tries until it is done, or the attempts are used up.
pub(crate) async fn run(job: &mut Job<'_>) -> Result<(), RepackError> {
    wait_for_the_word(job).await?;
    let (lock_timeout, capped) = swap::lock_timeout(&job.session, job.options.settings.lock_timeout).await?;
    if capped {
        job.events.warning(format!(
            "{}: lock_timeout is cut to {} ms, half of the server's deadlock_timeout: we must give way before a client is ended",
            job.table,
            lock_timeout.as_millis()
        ));
    }
    let attempts = job.options.run.attempts.max(1);
    let mut last = Outcome::Blocked(Blockers::default());
    // Once: no snapshot that begins later is older than the copy.
    old_snapshots(job).await?;
    let mut filled = fill::fill(job).await?;
    write_down_the_rest(job).await?;
    for attempt in 1..=attempts {
        steps::converge(job).await?;
        job.report.swap_attempts = attempt;
        let pid = swap::backend_pid(&job.session).await?;
        match Box::pin(once(job, pid, lock_timeout, &filled)).await? {
            Outcome::Swapped { lock_ms } => {
                job.report.lock_ms = lock_ms;
                return Ok(());
            }
            Outcome::Lost(error) => {
                return match look(job, pid, &error).await? {
                    true => Ok(()),
                    // Session and pipeline begin anew.
                    false => Err(RepackError::SessionLost(error.to_string())),
                };
            }
            outcome => {
                if matches!(outcome, Outcome::Stale) {
                    filled = fill::fill(job).await?;
                }
                tell(job, attempt, attempts, &outcome).await?;
                last = outcome;
            }
        }
        if attempt < attempts {
            rest(job, attempt, lock_timeout).await?;
            // A person may have paused it, or the window has closed.
            wait_for_the_word(job).await?;
            job.renew_definition().await?;
        }
    }
    Err(match last {
        Outcome::Blocked(blockers) => {
            RepackError::NotGranted { table: job.table.clone(), attempts, blocked_by: blockers.described() }
        }
        Outcome::Stale => RepackError::OutOfTime {
            table: job.table.clone(),
            attempts,
            limit_ms: job.options.run.max_lock.as_millis(),
            during: "others filled its materialized views",
        },
        Outcome::OutOfTime(during) => RepackError::OutOfTime {
            table: job.table.clone(),
            attempts,
            limit_ms: job.options.run.max_lock.as_millis(),
            during,
        },
        Outcome::Swapped { .. } | Outcome::Lost(_) => {
            RepackError::Internal("an attempt that ended was forgotten".to_owned())
        }
    })
}

/// What is to be done after the exchange, whoever does it.
async fn write_down_the_rest(job: &Job<'_>) -> Result<(), RepackError> {
    let plan = &job.definition()?.plan;
    let after: Vec<String> =
        plan.after.iter().map(|step| step.statement.clone()).chain(plan.drop_old.iter().cloned()).collect();
    state::set_after(&job.session, job.oid, &after).await
}

async fn once(
    job: &mut Job<'_>,
    pid: i32,
    lock_timeout: Duration,
    filled: &str,
) -> Result<Outcome, RepackError> {
    let views = fill::old_views(job)?;
    let Some(mut following) = job.following.take() else {
        return Err(RepackError::Internal("nobody applies changes".to_owned()));
    };
    let watcher = control_session(job.options).await?;
    let definition = job.definition()?;
    let attempt = Attempt {
        table: job.table,
        oid: job.oid,
        pid,
        slot: &job.slot,
        plan: &definition.plan,
        before: &definition.fingerprint,
        wanted: &definition.wanted,
        filled: (&views, filled),
        lock_timeout,
        max_lock: job.options.run.max_lock,
        resolution: job.options.settings.deadlock_resolution,
    };
    let result = attempt.run(&job.session, &watcher, &mut following).await;
    job.following = Some(following);
    result
}

/// What happened when the answer to COMMIT, or the session of server process `pid`, was lost: asked on a new session, after the old
/// one has ended. True: the tables are exchanged.
async fn look(job: &mut Job<'_>, pid: i32, error: &RepackError) -> Result<bool, RepackError> {
    const LIMIT: Duration = Duration::from_secs(60);
    job.events.warning(format!("{}: {error}; looking whether the tables were exchanged", job.table));
    let deadline = Instant::now() + LIMIT;
    loop {
        match timeout_at(deadline, ask(job, pid)).await {
            Ok(Ok(Some(swapped))) => return Ok(swapped),
            // The old session still lives, or the server does not answer yet.
            Ok(Ok(None) | Err(_)) => sleep(Duration::from_millis(200)).await,
            Err(_) => {
                return Err(RepackError::Ambiguous { table: job.table.clone(), error: error.to_string() });
            }
        }
    }
}

/// Which relation bears the name, once nobody holds the table's advisory lock but us. The lost session would hold it for as
/// long as its server believes in the connection, so it is ended: a COMMIT that is under way ends first.
async fn ask(job: &mut Job<'_>, lost: i32) -> Result<Option<bool>, RepackError> {
    let session = control_session(job.options).await?;
    if !state::try_lock(&session, job.oid).await? {
        state::end_holder(&session, job.oid, lost).await?;
        return Ok(None);
    }
    let now: Option<Oid> = relation_oid(&session, job.table).await?;
    job.session = session;
    Ok(Some(now.is_some() && now != Some(job.oid)))
}

async fn tell(job: &mut Job<'_>, attempt: u32, attempts: u32, outcome: &Outcome) -> Result<(), RepackError> {
    let none = Blockers::default();
    let (blockers, text) = match outcome {
        Outcome::Blocked(blockers) => {
            let names = blockers.described();
            let who = if names.is_empty() {
                "sessions that were gone when looked for".to_owned()
            } else {
                names.join("; ")
            };
            (blockers, format!("the locks were not granted, in the way: {who}"))
        }
        Outcome::Stale => (&none, "a materialized view was filled meanwhile; filled again".to_owned()),
        Outcome::OutOfTime(during) => (&none, format!("it ran out of time while {during}")),
        Outcome::Swapped { .. } | Outcome::Lost(_) => return Ok(()),
    };
    job.events.info(format!("{}: swap attempt {attempt} of {attempts}: {text}", job.table));
    let number = i32::try_from(attempt).unwrap_or(i32::MAX);
    state::set_attempt(&job.session, job.oid, number, &blockers.pids()).await
}

/// Lets the clients through that queued behind us; longer each time, never equally long.
async fn rest(job: &mut Job<'_>, attempt: u32, lock_timeout: Duration) -> Result<(), RepackError> {
    let grown =
        lock_timeout.saturating_mul(1 << attempt.min(6)).clamp(Duration::from_millis(50), LONGEST_REST);
    let pause = grown.mul_f64(rand::random_range(0.5..1.0));
    let watch = steps::control(job).await?;
    watch
        .over(async {
            sleep(pause).await;
            Ok(())
        })
        .await
}

/// `--postpone-swap`, `--window` and `pause`: changes go on being applied meanwhile.
async fn wait_for_the_word(job: &mut Job<'_>) -> Result<(), RepackError> {
    let postponed = job.options.run.postpone_swap;
    let window = job.options.run.window;
    if !postponed && window.is_none() && !job.shown.paused.load(Ordering::Relaxed) {
        return Ok(());
    }
    let watch = steps::control(job).await?;
    let Some(mut following) = job.following.take() else {
        return Err(RepackError::Internal("nobody applies changes".to_owned()));
    };
    let (events, table, shown) = (job.events, job.table, job.shown);
    let result = watch
        .over(async {
            let mut told = false;
            let mut ended = pin!(following.ended());
            loop {
                let asked = shown.swap.load(Ordering::Relaxed);
                let paused = shown.paused.load(Ordering::Relaxed);
                let open = window.is_none_or(|w| w.contains(minute_of_day()));
                if asked || (!postponed && open && !paused) {
                    return Ok(());
                }
                if !told {
                    let until = match (postponed, paused) {
                        (true, _) => "`repcloud swap`",
                        (false, true) => "`repcloud resume`",
                        (false, false) => "the window",
                    };
                    events.info(format!("{table}: ready; waiting for {until}"));
                    told = true;
                }
                tokio::select! {
                    biased;
                    error = &mut ended => return Err(error),
                    () = sleep(Duration::from_millis(300)) => {}
                }
            }
        })
        .await;
    drop(watch);
    job.following = Some(following);
    result
}

/// By this machine's clock.
fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0)
}

/// Waits, for a while, until no transaction is left whose snapshot is older than the copy's end. Not all can be waited for: what
/// begins between this look and the lock is a few milliseconds old.
async fn old_snapshots(job: &mut Job<'_>) -> Result<(), RepackError> {
    let Some(mine) = state::copied_xid(&job.session, job.oid).await? else { return Ok(()) };
    // Of other roles' sessions the server hides the type (not their snapshot) from one without pg_read_all_stats; those that
    // are no clients have no role, or are walsenders.
    let sql = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_xmin IS NOT NULL AND datname = pg_catalog.current_database() \
               AND pid <> pg_catalog.pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend' \
               AND usesysid IS NOT NULL AND pid NOT IN (SELECT pid FROM pg_catalog.pg_stat_replication) \
               AND pg_catalog.age(backend_xmin) > pg_catalog.age($1::text::xid)";
    let deadline = Instant::now() + OLD_SNAPSHOTS;
    let mut told = false;
    loop {
        let rows = job.session.query(sql, &[&mine]).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let pids: Vec<String> = rows
            .iter()
            .map(|row| row.try_get::<_, i32>(0).map(|pid| pid.to_string()))
            .collect::<Result<_, _>>()?;
        let who = pids.join(", ");
        if Instant::now() > deadline {
            let note = format!(
                "transactions with an older snapshot (pid {who}) may see {} without rows when they read it for the first time after the swap",
                job.table
            );
            job.events.warning(note.clone());
            job.report.notes.push(note);
            return Ok(());
        }
        if !told {
            job.events
                .info(format!("{}: waiting for transactions with an older snapshot (pid {who})", job.table));
            told = true;
        }
        let watch = steps::control(job).await?;
        watch
            .over(async {
                sleep(Duration::from_millis(200)).await;
                Ok(())
            })
            .await?;
    }
}
