//! What hangs on the table and cannot be carried over, as findings. Pure.

use super::finding::{Finding, Severity};
use crate::repack::dependents::{Inventory, Refusal};

const CHECK: &str = "dependents";

/// A finding for each refusal of the inventory, but for those that another check has said `already`.
pub fn judge(inventory: &Inventory, already: &[Finding]) -> Vec<Finding> {
    let said = |refusal: &&Refusal| !already.iter().any(|finding| says(finding, refusal));
    inventory.refusals().iter().filter(said).map(finding).collect()
}

fn says(finding: &Finding, refusal: &Refusal) -> bool {
    let same_help = match (&finding.remedy, &refusal.remedy) {
        (Some(ours), Some(theirs)) => ours.strip_prefix("run: ").is_some_and(|ours| theirs.starts_with(ours)),
        _ => false,
    };
    // Of the table itself much can be said; a publication that publishes everything is refused once.
    same_help || finding.object == refusal.object && !finding.object.starts_with("table ")
}

fn finding(refusal: &Refusal) -> Finding {
    let finding = Finding::new(CHECK, Severity::Refuse, refusal.object.clone(), refusal.reason.clone());
    match &refusal.remedy {
        Some(remedy) => finding.help(remedy.clone()),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_advice_is_given_once() {
        let ours = Finding::of_role("rights", "app", "it is not a member").help("run: GRANT owner TO app");
        let refusal = |object: &str, remedy: Option<&str>| Refusal {
            object: object.to_owned(),
            reason: "r".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        assert!(says(&ours, &refusal("table a.b", Some("GRANT owner TO app, or connect as the owner"))));
        assert!(!says(&ours, &refusal("table a.b", Some("GRANT other TO app"))));
        assert!(!says(&ours, &refusal("table a.b", None)));
        let all = Finding::new("publications", Severity::Refuse, "publication p".into(), "all");
        assert!(says(&all, &refusal("publication p", None)));
        let kind = Finding::new("kind", Severity::Refuse, "table a.b".into(), "typed");
        assert!(!says(&kind, &refusal("table a.b", None)));
        let shown = finding(&refusal("view v", Some("drop it")));
        assert_eq!(shown.to_string(), "view v: r; drop it");
    }
}
