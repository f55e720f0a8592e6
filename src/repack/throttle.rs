//! When the copy pauses: the first reason that holds, or none. What cannot be told is a reason too.

mod read;

use std::time::Duration;

pub use read::Throttle;

use super::options::ThrottleOptions;
use super::preflight::space::bytes;

/// What is known of one thing that may make the copy pause.
#[derive(Debug, Clone, PartialEq)]
pub enum Known<T> {
    /// This.
    Is(T),
    /// It cannot be told, and why.
    Unknown(String),
}

/// A replica that reads the source's WAL.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaLag {
    /// Its application name.
    pub name: String,
    /// How far it is behind.
    pub lag: Known<Duration>,
}

/// What was read; `None`: not asked for, or nothing to compare with yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThrottleFacts {
    /// The pause file exists.
    pub file: Option<Known<bool>>,
    /// Physical replicas; none: there are none.
    pub replicas: Option<Known<Vec<ReplicaLag>>>,
    /// The query asks for a pause.
    pub query: Option<Known<bool>>,
    /// WAL written, in bytes a second.
    pub wal_rate: Option<f64>,
}

/// Why the copy should pause: the first of file, replicas, query, WAL rate. Pure.
pub fn first_reason(options: &ThrottleOptions, facts: &ThrottleFacts) -> Option<String> {
    file(options, facts)
        .or_else(|| replicas(options, facts))
        .or_else(|| query(facts))
        .or_else(|| wal_rate(options, facts))
}

fn file(options: &ThrottleOptions, facts: &ThrottleFacts) -> Option<String> {
    let path = options.file.as_ref()?.display();
    match facts.file.as_ref()? {
        Known::Is(false) => None,
        Known::Is(true) => Some(format!("throttle_file: {path} exists")),
        Known::Unknown(why) => Some(format!("throttle_file: {path} cannot be looked for: {why}")),
    }
}

fn replicas(options: &ThrottleOptions, facts: &ThrottleFacts) -> Option<String> {
    let limit = options.lag?;
    let replicas = match facts.replicas.as_ref()? {
        Known::Is(replicas) => replicas,
        Known::Unknown(why) => {
            return Some(format!("throttle_lag: the lag of the replicas is unknown: {why}"));
        }
    };
    replicas.iter().find_map(|replica| match &replica.lag {
        Known::Is(lag) if *lag > limit => {
            let behind = lag.as_secs_f64();
            Some(format!(
                "throttle_lag: replica {} is {behind:.1} s behind, more than {limit:?}",
                replica.name
            ))
        }
        Known::Is(_) => None,
        Known::Unknown(why) => {
            Some(format!("throttle_lag: the lag of replica {} is unknown: {why}", replica.name))
        }
    })
}

fn query(facts: &ThrottleFacts) -> Option<String> {
    match facts.query.as_ref()? {
        Known::Is(false) => None,
        Known::Is(true) => Some("throttle_query: it asks for a pause".to_owned()),
        Known::Unknown(why) => Some(format!("throttle_query: {why}")),
    }
}

fn wal_rate(options: &ThrottleOptions, facts: &ThrottleFacts) -> Option<String> {
    let (limit, rate) = (options.max_wal_rate?, facts.wal_rate?);
    (rate > limit as f64).then(|| {
        format!("max_wal_rate: {} a second are written, more than {}", bytes(rate as u64), bytes(limit))
    })
}

/// What a throttle query's answer means: true or a number above 0 asks for a pause. Pure.
pub fn asks_for_pause(answer: Option<&str>) -> Known<bool> {
    let unknown =
        |what: &str| Known::Unknown(format!("its answer is {what}, neither a boolean nor a number"));
    match answer {
        None => unknown("NULL or no row"),
        Some("t" | "true") => Known::Is(true),
        Some("f" | "false") => Known::Is(false),
        Some(text) => match text.parse::<f64>() {
            Ok(number) if !number.is_nan() => Known::Is(number > 0.0),
            _ => unknown("a text"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ThrottleOptions {
        ThrottleOptions {
            lag: Some(Duration::from_secs(30)),
            query: Some("select true".into()),
            file: Some("/pause".into()),
            max_wal_rate: Some(50 << 20),
        }
    }

    fn calm() -> ThrottleFacts {
        let lag = Known::Is(Duration::from_secs(30));
        ThrottleFacts {
            file: Some(Known::Is(false)),
            replicas: Some(Known::Is(vec![ReplicaLag { name: "r1".into(), lag }])),
            query: Some(Known::Is(false)),
            wal_rate: Some((50 << 20) as f64),
        }
    }

    #[test]
    fn nothing_asked_for_or_nothing_wrong_is_no_reason() {
        assert_eq!(first_reason(&options(), &calm()), None);
        assert_eq!(first_reason(&options(), &ThrottleFacts::default()), None);
        let wild = ThrottleFacts { wal_rate: Some(1e12), ..calm() };
        assert_eq!(first_reason(&ThrottleOptions::default(), &wild), None);
        let none = ThrottleFacts { replicas: Some(Known::Is(vec![])), ..calm() };
        assert_eq!(first_reason(&options(), &none), None);
    }

    #[test]
    fn each_reason_is_told_and_the_first_one_wins() {
        let replica = |lag| Some(Known::Is(vec![ReplicaLag { name: "r1".into(), lag }]));
        let mut facts = calm();
        facts.wal_rate = Some((80 << 20) as f64);
        assert_eq!(
            first_reason(&options(), &facts).unwrap(),
            "max_wal_rate: 80.0 MB a second are written, more than 50.0 MB"
        );
        facts.query = Some(Known::Is(true));
        assert_eq!(first_reason(&options(), &facts).unwrap(), "throttle_query: it asks for a pause");
        facts.replicas = replica(Known::Is(Duration::from_millis(30_500)));
        assert_eq!(
            first_reason(&options(), &facts).unwrap(),
            "throttle_lag: replica r1 is 30.5 s behind, more than 30s"
        );
        facts.file = Some(Known::Is(true));
        assert_eq!(first_reason(&options(), &facts).unwrap(), "throttle_file: /pause exists");
    }

    #[test]
    fn what_is_unknown_pauses() {
        let unknown = || Known::Unknown("nobody knows".to_owned());
        for facts in [
            ThrottleFacts { file: Some(Known::Unknown("nobody knows".into())), ..calm() },
            ThrottleFacts { replicas: Some(Known::Unknown("nobody knows".into())), ..calm() },
            ThrottleFacts {
                replicas: Some(Known::Is(vec![ReplicaLag { name: "r".into(), lag: unknown() }])),
                ..calm()
            },
            ThrottleFacts { query: Some(Known::Unknown("nobody knows".into())), ..calm() },
        ] {
            assert!(first_reason(&options(), &facts).unwrap().contains("nobody knows"), "{facts:?}");
        }
    }

    #[test]
    fn a_query_answers_with_a_boolean_or_a_number() {
        for (answer, pause) in
            [("t", true), ("f", false), ("1", true), ("0", false), ("-3", false), ("0.5", true)]
        {
            assert_eq!(asks_for_pause(Some(answer)), Known::Is(pause), "{answer}");
        }
        for answer in [None, Some("maybe"), Some(""), Some("NaN")] {
            assert!(matches!(asks_for_pause(answer), Known::Unknown(_)), "{answer:?}");
        }
    }
}
