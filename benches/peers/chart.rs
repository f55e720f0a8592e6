//! Bars: seconds of each peer in each workload.

use std::fmt::Write as _;

use crate::drain::{Drained, PEERS};
use crate::report::seconds;

const COLOURS: [&str; 3] = ["#9aa5b1", "#4c78a8", "#e4572e"];
const LEFT: f64 = 250.0;
const WIDTH: f64 = 420.0;
const BAR: f64 = 16.0;

/// A picture that any browser shows; its text can be read without it too.
pub(crate) fn svg(drains: &[&Drained]) -> String {
    let most = drains.iter().flat_map(|d| PEERS.iter().filter_map(|p| seconds(d, p))).fold(0.1, f64::max);
    let block = BAR * 3.0 + 18.0;
    let height = 60.0 + block * drains.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Seconds to bring a backlog to its end (less is better)</title>\n<rect width=\"760\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n"
    );
    for (index, (peer, colour)) in PEERS.iter().zip(COLOURS).enumerate() {
        let x = LEFT + index as f64 * 140.0;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"24\">{peer}</text>",
            x + 18.0
        );
    }
    for (row, drained) in drains.iter().enumerate() {
        let top = 45.0 + row as f64 * block;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            top + BAR * 1.7,
            drained.title
        );
        for (index, (peer, colour)) in PEERS.iter().zip(COLOURS).enumerate() {
            let Some(seconds) = seconds(drained, peer) else { continue };
            let (y, width) = (top + index as f64 * BAR, (seconds / most * WIDTH).max(1.0));
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.0}\">{seconds:.2} s</text>",
                BAR - 2.0,
                LEFT + width + 6.0,
                y + BAR - 4.0
            );
        }
    }
    out + "</svg>\n"
}
