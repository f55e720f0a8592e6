//! The text of a row, as `record_out` writes it, to a row image.
//!
//! Fields stand between brackets with commas between them. Nothing at all is NULL, `""` the empty text. A field that holds
//! a quote, a backslash, a bracket, a comma or white space is quoted; quotes and backslashes in it are doubled.

use crate::model::tuple::OwnedTupleBuilder;
use crate::model::{Tuple, Value};

/// The text is no row of so many fields. Holds no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompositeError {
    /// Not what `record_out` writes.
    #[error("the text of a row breaks off or is malformed at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// Another number of fields: the table's columns were others when it was written.
    #[error("the text of a row has {found} fields, the table {expected} columns")]
    Fields {
        /// Columns.
        expected: usize,
        /// Fields.
        found: usize,
    },
}

/// Reads the row `text`; of its fields those are kept for which `kept` says so, which has an entry for each column.
pub fn decode(text: &[u8], kept: &[bool]) -> Result<Tuple, CompositeError> {
    let malformed = |at| CompositeError::Malformed { at };
    let inner = text.strip_prefix(b"(").and_then(|t| t.strip_suffix(b")")).ok_or(malformed(0))?;
    let mut tuple = OwnedTupleBuilder::with_capacity(kept.len());
    let mut scratch = Vec::new();
    // A table without columns and one NULL look alike.
    if kept.is_empty() && inner.is_empty() {
        return Ok(tuple.finish());
    }
    let (mut at, mut found) = (0, 0);
    loop {
        let (value, end) = field(inner, at, &mut scratch).ok_or(malformed(at + 1))?;
        if kept.get(found).copied().unwrap_or(false) {
            tuple.push(value.map_or(Value::Null, Value::Text));
        }
        found += 1;
        if end == inner.len() {
            break;
        }
        // `field` ends at a comma.
        at = end + 1;
    }
    if found == kept.len() {
        return Ok(tuple.finish());
    }
    Err(CompositeError::Fields { expected: kept.len(), found })
}

/// The field that begins at `at`, and where it ends; `None`: it is malformed.
fn field<'a>(text: &[u8], at: usize, scratch: &'a mut Vec<u8>) -> Option<(Option<&'a [u8]>, usize)> {
    scratch.clear();
    let (mut at, mut quoted, mut seen) = (at, false, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b',' if !quoted => break,
            b'(' | b')' if !quoted => return None,
            b'\\' => {
                scratch.push(*text.get(at + 1)?);
                at += 1;
            }
            b'"' if quoted && text.get(at + 1) == Some(&b'"') => {
                scratch.push(b'"');
                at += 1;
            }
            b'"' => quoted = !quoted,
            byte => scratch.push(byte),
        }
        seen = true;
        at += 1;
    }
    (!quoted).then_some((seen.then_some(&scratch[..]), at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str, columns: usize) -> Result<Vec<Option<String>>, CompositeError> {
        let tuple = decode(text.as_bytes(), &vec![true; columns])?;
        Ok(tuple
            .values()
            .map(|value| match value {
                Value::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => None,
            })
            .collect())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn fields_come_back_as_record_out_wrote_them() {
        assert_eq!(texts("(1,abc,)", 3), Ok(vec![some("1"), some("abc"), None]));
        assert_eq!(texts("(,\"\",)", 3), Ok(vec![None, some(""), None]));
        assert_eq!(
            texts("(\"a \"\"b\"\" \\\\c\",\"(x,y)\")", 2),
            Ok(vec![some("a \"b\" \\c"), some("(x,y)")])
        );
        assert_eq!(texts("(\"{\"\"a b\"\",NULL}\")", 1), Ok(vec![some("{\"a b\",NULL}")]));
        assert_eq!(texts("(\"line\nbreak\")", 1), Ok(vec![some("line\nbreak")]));
        assert_eq!(texts("()", 0), Ok(vec![]));
        assert_eq!(texts("()", 1), Ok(vec![None]));
    }

    #[test]
    fn what_is_no_row_of_these_columns_is_an_error() {
        for broken in ["", "(", "1,2", "(1,\"2)", "(1,2\\)", "(a(b,2)"] {
            assert!(matches!(texts(broken, 2), Err(CompositeError::Malformed { .. })), "{broken}");
        }
        assert_eq!(texts("(1,2)", 3), Err(CompositeError::Fields { expected: 3, found: 2 }));
        assert_eq!(texts("(1,2,3)", 2), Err(CompositeError::Fields { expected: 2, found: 3 }));
        assert!(texts("(1)", 0).is_err());
    }

    #[test]
    fn columns_that_are_not_wanted_are_left_out() {
        let tuple = decode(b"(1,2,3)", &[true, false, true]).unwrap();
        assert!(tuple.values().eq([Value::Text(b"1"), Value::Text(b"3")]));
    }

    /// `record_out`'s rules.
    fn write(fields: &[Option<String>]) -> String {
        let one = |field: &Option<String>| match field {
            None => String::new(),
            Some(text) => {
                let special = |c: char| "\"\\(),".contains(c) || c.is_ascii_whitespace() || c == '\u{b}';
                let escaped = text.replace('\\', "\\\\").replace('"', "\"\"");
                if text.is_empty() || text.contains(special) { format!("\"{escaped}\"") } else { escaped }
            }
        };
        format!("({})", fields.iter().map(one).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn every_row_survives(fields in prop::collection::vec(prop::option::of("[a-c\"\\\\(), \n\té]{0,6}"), 1..6)) {
            prop_assert_eq!(texts(&write(&fields), fields.len()), Ok(fields));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC*", columns in 0usize..4) {
            let _either = texts(&text, columns);
        }
    }
}
