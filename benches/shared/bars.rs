//! A picture of bars: one block for each row, one bar for each contender.

use std::fmt::Write as _;

const LEFT: f64 = 250.0;
const WIDTH: f64 = 420.0;
const BAR: f64 = 16.0;

/// A contender's name and colour.
pub(crate) type Series = (&'static str, &'static str);

/// One row: its title, and a value of each contender that has one.
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// A picture that any browser shows; its text can be read without it too. `unit` follows each value.
pub(crate) fn svg(title: &str, series: &[Series], rows: &[Row], unit: &str) -> String {
    let most = rows.iter().flat_map(|row| row.values.iter().flatten()).fold(0.1_f64, |a, b| a.max(*b));
    let block = BAR * series.len() as f64 + 18.0;
    let height = 60.0 + block * rows.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n<rect width=\"760\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n"
    );
    let step = (760.0 - 120.0) / series.len() as f64;
    for (index, (name, colour)) in series.iter().enumerate() {
        let x = 100.0 + index as f64 * step;
        let _ = writeln!(
            out,
            "<rect x=\"{x:.0}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"24\">{name}</text>",
            x + 18.0
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let top = 45.0 + index as f64 * block;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            top + BAR * (series.len() as f64 + 0.4) / 2.0,
            row.title
        );
        for (index, (value, (_, colour))) in row.values.iter().zip(series).enumerate() {
            let Some(value) = value else { continue };
            let (y, width) = (top + index as f64 * BAR, (value / most * WIDTH).max(1.0));
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.0}\">{value:.2} {unit}</text>",
                BAR - 2.0,
                LEFT + width + 6.0,
                y + BAR - 4.0
            );
        }
    }
    out + "</svg>\n"
}
