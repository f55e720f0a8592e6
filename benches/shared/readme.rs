//! The part of `benches/README.md` that a benchmark writes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where reports and pictures go.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches")
}

/// Puts `text` between `<!-- name: begin -->` and `<!-- name: end -->`.
pub(crate) fn write_part(name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder().join("README.md");
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (before, rest) =
        old.split_once(&begin).with_context(|| format!("benches/README.md has lost {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("benches/README.md has lost {end}"))?;
    std::fs::write(&path, format!("{before}{begin}\n{text}{end}{after}"))?;
    Ok(())
}
