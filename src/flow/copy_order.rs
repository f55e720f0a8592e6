//! In which order tables are copied where the target's foreign keys stay awake. Pure.

use std::collections::BTreeSet;

use crate::model::TableName;

/// A target table and the tables its foreign keys refer to.
pub(crate) type References = (TableName, Vec<TableName>);

/// Waves of tables, as indexes into `tables`: when a wave begins, all that it refers to has been copied. Tables that refer to
/// each other in a circle are the last wave, all at once; the server then says what it does not take.
pub(crate) fn waves(tables: &[References]) -> Vec<Vec<usize>> {
    let mut waiting: BTreeSet<usize> = (0..tables.len()).collect();
    let mut waves = Vec::new();
    while !waiting.is_empty() {
        let refers_to_waiting = |index: &usize| {
            let (name, references) = &tables[*index];
            references.iter().any(|r| r != name && waiting.iter().any(|&w| tables[w].0 == *r))
        };
        let ready: Vec<usize> = waiting.iter().copied().filter(|index| !refers_to_waiting(index)).collect();
        let wave = if ready.is_empty() { waiting.iter().copied().collect() } else { ready };
        wave.iter().for_each(|index| {
            waiting.remove(index);
        });
        waves.push(wave);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, references: &[&str]) -> References {
        (TableName::new("public", name), references.iter().map(|r| TableName::new("public", *r)).collect())
    }

    #[test]
    fn parents_come_before_children_whatever_the_order_of_the_list() {
        let tables = [
            table("grandchild", &["child"]),
            table("child", &["parent", "child"]),
            table("parent", &["elsewhere"]),
        ];
        assert_eq!(waves(&tables), [vec![2], vec![1], vec![0]]);
        assert_eq!(waves(&[table("a", &[]), table("b", &[])]), [vec![0, 1]]);
    }

    #[test]
    fn a_circle_ends_the_list() {
        let tables = [table("hen", &["egg"]), table("egg", &["hen"]), table("alone", &[])];
        assert_eq!(waves(&tables), [vec![2], vec![0, 1]]);
    }
}
