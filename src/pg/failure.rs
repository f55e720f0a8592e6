//! What an error of the server means for us, and its text without row values. Pure.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::DbError;

use crate::model::RetryAdvice;
use crate::pg::conditions;
use crate::pg::error::PgError;

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Passing: the server restarts, the network broke, a deadlock, a serialization failure, too many
    /// connections, a limit of time.
    Transient,
    /// The object is in use by another session (55006): a slot that is active elsewhere. Passing when that
    /// session is a dead one of ours; a person must decide when it stays.
    InUse,
    /// The row meets another row that is already there or misses one (unique, foreign key, exclusion).
    Conflict,
    /// The target does not take the row or the statement: a CHECK, NOT NULL, a missing table or column, a wrong
    /// type, a value that does not fit, an error raised by a trigger.
    Rejected,
    /// The role may not.
    Privilege,
    /// Anything else.
    Other,
}

impl FailureClass {
    /// What the error's owner should do.
    pub fn advice(self) -> RetryAdvice {
        match self {
            FailureClass::Transient | FailureClass::InUse => RetryAdvice::Reconnect,
            FailureClass::Conflict
            | FailureClass::Rejected
            | FailureClass::Privilege
            | FailureClass::Other => RetryAdvice::Stop,
        }
    }
}

/// The class of a SQLSTATE (PostgreSQL's appendix "Error Codes").
pub fn class_of_sqlstate(sqlstate: &str) -> FailureClass {
    match sqlstate {
        "55006" => FailureClass::InUse,
        // Serialization, deadlock, lock not available, a cancelled statement, idle and transaction limits.
        "40001" | "40P01" | "40003" | "55P03" | "57014" | "25P03" | "25P04" | "57P05" => {
            FailureClass::Transient
        }
        // Shutdown, crash, start-up; and a standby where a primary was (a failover is under way).
        "57P01" | "57P02" | "57P03" | "25006" => FailureClass::Transient,
        "23505" | "23503" | "23P01" | "23001" => FailureClass::Conflict,
        "42501" => FailureClass::Privilege,
        // Undefined and mismatched objects: a person changes the target, then the statement works.
        "42P01" | "42703" | "42704" | "42804" | "42883" | "42846" | "428C9" | "3F000" | "42809" => {
            FailureClass::Rejected
        }
        // A trigger's RAISE, a view's CHECK OPTION.
        "P0001" | "P0004" | "44000" => FailureClass::Rejected,
        _ => match sqlstate.get(..2) {
            Some("08" | "53") => FailureClass::Transient,
            Some("22" | "23") => FailureClass::Rejected,
            Some("28") => FailureClass::Privilege,
            _ => FailureClass::Other,
        },
    }
}

/// The server met an object in its catalogs that somebody dropped while it read them: reading again helps.
pub fn is_gone_meanwhile(sqlstate: &str, message: &str) -> bool {
    match sqlstate {
        "42704" => message.starts_with("publication "),
        "XX000" => message.starts_with("cache lookup failed"),
        _ => false,
    }
}

/// The class of an error of tokio-postgres.
pub fn class_of(error: &tokio_postgres::Error) -> FailureClass {
    if let Some(db) = error.as_db_error() {
        return class_of_sqlstate(db.code().code());
    }
    if error.is_closed() || error.source().is_some_and(|cause| cause.is::<io::Error>()) {
        return FailureClass::Transient;
    }
    FailureClass::Other
}

/// What the server reports about an error, as far as we look at it. DETAIL, CONTEXT and the like are left out
/// on purpose: they hold row values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) data_type: Option<String>,
    pub(crate) constraint: Option<String>,
    pub(crate) routine: Option<String>,
}

impl Report {
    /// From the fields of an ErrorResponse: a type byte, a text ending in NUL, again; a NUL ends the list.
    pub(crate) fn parse(mut body: &[u8]) -> Report {
        let mut report = Report::default();
        while let [kind @ 1..=255, rest @ ..] = body {
            let Some(end) = memchr::memchr(0, rest) else { break };
            let text = || String::from_utf8_lossy(&rest[..end]).into_owned();
            match kind {
                // 'V' is never translated, 'S' is; a server sends S first.
                b'S' | b'V' => report.severity = text(),
                b'C' => report.sqlstate = text(),
                b'M' => report.message = text(),
                b'H' => report.hint = Some(text()),
                b's' => report.schema = Some(text()),
                b't' => report.table = Some(text()),
                b'c' => report.column = Some(text()),
                b'd' => report.data_type = Some(text()),
                b'n' => report.constraint = Some(text()),
                b'R' => report.routine = Some(text()),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        report
    }

    /// From an error that tokio-postgres has read.
    pub(crate) fn of(db: &DbError) -> Report {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Report {
            severity: db.severity().to_owned(),
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            hint: owned(db.hint()),
            schema: owned(db.schema()),
            table: owned(db.table()),
            column: owned(db.column()),
            data_type: owned(db.datatype()),
            constraint: owned(db.constraint()),
            routine: owned(db.routine()),
        }
    }

    /// The message may hold a value: bad input (22…), a violated constraint (23…, 44…), whatever a function's
    /// author wrote (P0…, 38…, 39…, or any code by RAISE), a foreign server's words (HV…).
    fn may_hold_values(&self) -> bool {
        let by_code = matches!(self.sqlstate.get(..2), Some("22" | "23" | "44" | "P0" | "38" | "39" | "HV"));
        let by_author = self.routine.as_deref().is_some_and(|routine| {
            routine.starts_with("exec_stmt_")
                || routine.starts_with("PLy")
                || routine.starts_with("plperl")
                || routine.starts_with("pltcl")
        });
        by_code || by_author
    }

    /// One line: the server's message, or the condition's name where the message may hold a value; then the
    /// objects the server names.
    pub(crate) fn line(&self) -> String {
        let mut line = if self.may_hold_values() {
            conditions::name(&self.sqlstate).to_owned()
        } else {
            self.message.lines().next().unwrap_or_default().to_owned()
        };
        let mut objects = Vec::new();
        if let Some(table) = &self.table {
            let schema = self.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
            objects.push(format!("table {schema}{table}"));
        }
        for (kind, name) in
            [("column", &self.column), ("constraint", &self.constraint), ("type", &self.data_type)]
        {
            if let Some(name) = name {
                objects.push(format!("{kind} {name}"));
            }
        }
        if !objects.is_empty() {
            line.push_str(&format!(" ({})", objects.join(", ")));
        }
        line
    }

    /// The hint, unless somebody may have written a value into it.
    pub(crate) fn safe_hint(&self) -> Option<String> {
        if self.may_hold_values() { None } else { self.hint.clone() }
    }

    pub(crate) fn into_error(self) -> PgError {
        PgError::Server { message: self.line(), hint: self.safe_hint(), sqlstate: self.sqlstate }
    }
}

/// One line without row values: severity, what happened, the objects, SQLSTATE and hint.
///
/// `ERROR: unique_violation (table public.t, constraint t_pkey), SQLSTATE 23505`
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let report = Report::of(db);
            let hint = report.safe_hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{}: {}, SQLSTATE {}{hint}", report.severity, report.line(), report.sqlstate)
        }
        None => client_side(error),
    }
}

/// An error that the server did not report: tokio-postgres's text, and its cause where that cannot hold a value
/// (a parameter that does not serialize might).
fn client_side(error: &tokio_postgres::Error) -> String {
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        const DURING: &str = "talking to the server";
        if let Some(db) = error.as_db_error() {
            return Report::of(db).into_error();
        }
        if error.is_closed() {
            return PgError::closed(DURING);
        }
        let text = error.to_string();
        match error.into_source().and_then(|cause| cause.downcast::<io::Error>().ok()) {
            Some(source) => PgError::io(DURING, *source),
            None => PgError::protocol(DURING, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, text) in fields {
            body.push(*kind);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }

    #[test]
    fn classes_follow_the_code() {
        for (code, class) in [
            ("08006", FailureClass::Transient),
            ("57P01", FailureClass::Transient),
            ("53300", FailureClass::Transient),
            ("40P01", FailureClass::Transient),
            ("55006", FailureClass::InUse),
            ("23505", FailureClass::Conflict),
            ("23P01", FailureClass::Conflict),
            ("23502", FailureClass::Rejected),
            ("22P02", FailureClass::Rejected),
            ("42P01", FailureClass::Rejected),
            ("42501", FailureClass::Privilege),
            ("28P01", FailureClass::Privilege),
            ("42601", FailureClass::Other),
            ("57P04", FailureClass::Other),
            ("XX000", FailureClass::Other),
            ("", FailureClass::Other),
            ("é", FailureClass::Other),
        ] {
            assert_eq!(class_of_sqlstate(code), class, "{code}");
        }
        assert_eq!(FailureClass::InUse.advice(), RetryAdvice::Reconnect);
        assert_eq!(FailureClass::Conflict.advice(), RetryAdvice::Stop);
    }

    #[test]
    fn values_stay_out_of_the_text() {
        let body = fields(&[
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "22P02"),
            (b'M', "invalid input syntax for type integer: \"secret\""),
            (b'D', "secret"),
            (b'W', "COPY t, line 1, column a: \"secret\""),
        ]);
        let error = Report::parse(&body).into_error();
        assert_eq!(error.to_string(), "the server answers: invalid_text_representation (SQLSTATE 22P02)");

        let body = fields(&[
            (b'S', "ERROR"),
            (b'C', "23505"),
            (b'M', "duplicate key value violates unique constraint \"t_pkey\""),
            (b'D', "Key (id)=(secret) already exists."),
            (b's', "public"),
            (b't', "t"),
            (b'n', "t_pkey"),
        ]);
        assert_eq!(Report::parse(&body).line(), "unique_violation (table public.t, constraint t_pkey)");
    }

    #[test]
    fn what_a_function_raises_is_not_repeated() {
        let body = fields(&[
            (b'S', "ERROR"),
            (b'C', "42501"),
            (b'M', "customer secret may not order"),
            (b'H', "ask secret"),
            (b'R', "exec_stmt_raise"),
        ]);
        let error = Report::parse(&body).into_error();
        assert_eq!(error.to_string(), "the server answers: insufficient_privilege (SQLSTATE 42501)");
    }

    #[test]
    fn damaged_reports_are_read_as_far_as_they_go() {
        assert_eq!(Report::parse(b""), Report::default());
        assert_eq!(Report::parse(b"M"), Report::default());
        assert_eq!(Report::parse(b"Mabc"), Report::default());
        assert_eq!(Report::parse(b"Mabc\0C").message, "abc");
        assert_eq!(Report::parse(b"\0Mabc\0"), Report::default());
    }
}
