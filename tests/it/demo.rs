//! The demo from its beginning to its end, and from its beginning to Ctrl-C.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::process::Repcloud;

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: [&str; 5] = ["demo", "--scale", "1", "--seconds", "5"];

/// A demo whose servers live in a directory of the test's own.
fn program(place: &Path) -> Repcloud {
    let clusters = place.join("clusters");
    // As root the servers run as somebody else, who must be able to get there.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place, open).unwrap();
    Repcloud::new("").env("REPCLOUD_CLUSTER_DIR", clusters.to_str().unwrap())
}

/// Clusters that were not removed.
fn left(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place.join("clusters")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('c')).collect()
}

#[test]
fn the_demo_shows_a_crash_and_a_repack_without_a_difference_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let finished = program(place.path()).run(&SHORT, LIMIT).expect_code(0);
    let text = &finished.stdout;
    for part in [
        "1. ",
        "rows copied",
        "kill -9",
        "9. ",
        "public.pgbench_history",
        "11. ",
        "MB after",
        "none failed",
        "No differences, nothing lost.",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let control = |letter: char| letter.is_control() && letter != '\n';
    assert!(!text.contains(control) && !finished.stderr.contains(control), "{finished:?}");
    assert_eq!(left(place.path()), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let program = program(place.path());
    let running = program.spawn(&["demo", "--scale", "1", "--seconds", "60"]);
    let deadline = Instant::now() + LIMIT;
    while !running.stdout().contains("5. ") {
        assert!(Instant::now() < deadline, "the load never began: {}", running.stdout());
        std::thread::sleep(Duration::from_millis(20));
    }
    running.interrupt();
    let finished = running.wait(LIMIT).expect_code(130);
    assert!(finished.stdout.contains("Interrupted"), "{finished:?}");
    assert_eq!(left(place.path()), Vec::<String>::new());
}
