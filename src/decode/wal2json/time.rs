//! The time of a commit as wal2json prints it.

use crate::model::PgTimestamp;

/// Reads `2026-11-21 09:59:57.943467+00`: ISO style, the session's time zone, as our sessions are pinned. `None` for
/// anything else.
pub(super) fn timestamp(text: &str) -> Option<PgTimestamp> {
    let (date, rest) = text.split_once(' ')?;
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = rest.find(['+', '-'])?;
    let (clock, offset) = rest.split_at(zone);
    let (clock, micros) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, fraction_micros(fraction)?),
        None => (clock, 0),
    };
    let seconds = clock_seconds(clock)?;
    let east = clock_seconds(offset.get(1..)?)? * if offset.starts_with('-') { -1 } else { 1 };
    let days = days_since_2000(year, month, day);
    let whole = days.checked_mul(86_400)?.checked_add(seconds - east)?;
    Some(PgTimestamp(whole.checked_mul(1_000_000)?.checked_add(micros)?))
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 6 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `HH`, `HH:MM` or `HH:MM:SS`.
fn clock_seconds(text: &str) -> Option<i64> {
    let mut seconds = 0;
    let mut unit = 3600;
    for part in text.split(':') {
        seconds += number(part)? * unit;
        unit /= 60;
    }
    Some(seconds)
}

fn fraction_micros(text: &str) -> Option<i64> {
    let scale = 6u32.checked_sub(u32::try_from(text.len()).ok()?)?;
    Some(number(text)? * 10i64.pow(scale))
}

/// Days of the proleptic Gregorian calendar since 2000-01-01.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 730_425
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_microseconds_since_2000() {
        for (text, micros) in [
            ("2000-01-01 00:00:00+00", 0),
            ("2000-01-01 00:00:00.5+00", 500_000),
            ("1999-12-31 23:59:59.999999+00", -1),
            ("2000-03-01 00:00:00+00", 60 * 86_400 * 1_000_000),
            ("2000-01-01 05:30:00+05:30", 0),
            ("1999-12-31 19:00:00-05", 0),
            // select extract(epoch from timestamptz '2026-11-21 09:59:57.943467+00') - 946684800
            ("2026-11-21 09:59:57.943467+00", 848_570_397_943_467),
        ] {
            assert_eq!(timestamp(text), Some(PgTimestamp(micros)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2000-01-01",
            "Sat Jan 01 00:00:00 2000 UTC",
            "2000-13-01 00:00:00+00",
            "2000-01-01 00:00:00.1234567+00",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }
}
