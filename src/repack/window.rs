//! The hours of the day in which tables may be exchanged. Pure: the time of day is passed in.

use std::fmt;
use std::str::FromStr;

const DAY: u16 = 24 * 60;

/// A part of the day, `HH:MM-HH:MM`, that comes again every day; one that ends before it begins reaches over midnight.
///
/// The first minute belongs to it, the last does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: u16,
    to: u16,
}

impl Window {
    /// True when `minute` (of the day, from 0) is inside.
    pub fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }

    /// Minutes from `minute` (of the day, from 0) until it opens; 0 inside.
    pub fn minutes_until_open(self, minute: u16) -> u16 {
        if self.contains(minute) { 0 } else { (self.from + DAY - minute % DAY) % DAY }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl FromStr for Window {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected HH:MM-HH:MM, like 22:00-05:30";
        let (from, to) = text.split_once('-').ok_or(WANTED)?;
        let (from, to) = (minute(from).ok_or(WANTED)?, minute(to).ok_or(WANTED)?);
        // 24:00 is the end of a day, never its beginning.
        if from == DAY || from == to % DAY && to != DAY {
            return Err("the window is empty: it begins when it ends");
        }
        Ok(Window { from, to })
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u16> {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_back_as_it_was_written() {
        for text in ["00:00-24:00", "22:00-05:30", "09:15-09:16"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for bad in
            ["", "22:00", "22-05", "9:00-10:00", "25:00-01:00", "10:60-11:00", "10:00-10:00", "24:00-01:00"]
        {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_may_reach_over_midnight() {
        let night: Window = "22:00-05:30".parse().unwrap();
        for (minute, wait) in [(0, 0), (329, 0), (330, 990), (1319, 1), (1320, 0), (1439, 0)] {
            assert_eq!(night.minutes_until_open(minute), wait, "{minute}");
            assert_eq!(night.contains(minute), wait == 0, "{minute}");
        }
        let day: Window = "09:00-17:00".parse().unwrap();
        for (minute, wait) in [(0, 540), (540, 0), (1019, 0), (1020, 960)] {
            assert_eq!(day.minutes_until_open(minute), wait, "{minute}");
        }
        let always: Window = "00:00-24:00".parse().unwrap();
        assert!((0..DAY).all(|minute| always.contains(minute)));
    }
}
