use super::options::TableSettings;
use crate::catalog::TableDef;
pub fn rewrite(_t: &TableDef, _s: &TableSettings, _c: &str) -> Option<String> {
    None
}
