//! In which order tables are copied where the target's foreign keys stay awake. Pure.

use std::collections::BTreeSet;

use crate::model::TableName;

/// A target table and the tables its foreign keys refer to.
pub(crate) type References = (TableName, Vec<TableName>);

/// Tables that refer to each other in a circle of two or more: no order of copying them satisfies their foreign keys.
pub(crate) fn in_circles(tables: &[References]) -> Vec<usize> {
    let reaches_itself = |start: usize| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(index) = next.pop() {
            let (name, references) = &tables[index];
            for (other, (target, _)) in tables.iter().enumerate() {
                if target == name || !references.contains(target) {
                    continue;
                }
                if other == start {
                    return true;
                }
                if seen.insert(other) {
                    next.push(other);
                }
            }
        }
        false
    };
    (0..tables.len()).filter(|&index| reaches_itself(index)).collect()
}

/// Waves of tables, as indexes into `tables`: when a wave begins, all that it refers to has been copied. Tables that refer to
/// each other in a circle ([`in_circles`], which pre-flight refuses) are the last wave, all at once.
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
    fn a_circle_is_found_whatever_hangs_on_it_and_a_reference_to_itself_is_none() {
        let tables = [
            table("child", &["hen"]),
            table("hen", &["egg"]),
            table("egg", &["chick", "parent"]),
            table("chick", &["hen"]),
            table("parent", &["parent"]),
        ];
        assert_eq!(in_circles(&tables), [1, 2, 3]);
    }

    #[test]
    fn a_circle_ends_the_list() {
        let tables = [table("hen", &["egg"]), table("egg", &["hen"]), table("alone", &[])];
        assert_eq!(waves(&tables), [vec![2], vec![0, 1]]);
    }
}
