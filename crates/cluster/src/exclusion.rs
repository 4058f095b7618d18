//! Nodes on which stages fail and fail: one broken node takes stage after stage, because it is free again at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{event::FleetEvent, profile::BadNode};

/// Nodes that are no longer used, with the reason.
#[derive(Debug, Default)]
pub(crate) struct Exclusions {
    nodes: BTreeMap<String, String>,
    /// Whether it was said that all fail.
    said: bool,
}

impl Exclusions {
    /// Takes over what an earlier coordinator found.
    pub fn remember(&mut self, node: String, reason: String) {
        self.nodes.insert(node, reason);
    }

    /// Looks at the failures of nodes: by node, the seconds after which each of its latest stages failed, without a success between them.
    /// `used` are the nodes that jobs run on. Where every one of them fails, it is the program or its data, and none is excluded.
    pub fn look(
        &mut self,
        failures: &HashMap<String, Vec<f64>>,
        used: &BTreeSet<String>,
        rule: BadNode,
    ) -> Vec<FleetEvent> {
        let fast = |seconds: &&f64| **seconds <= rule.faster_than as f64;
        let count = |seconds: &[f64]| seconds.iter().rev().take_while(fast).count();
        let failing: BTreeMap<&String, &Vec<f64>> = failures
            .iter()
            .filter(|(node, seconds)| count(seconds) >= rule.failures as usize && !self.nodes.contains_key(*node))
            .collect();
        if failing.is_empty() {
            return Vec::new();
        }
        let is_well = |node: &&String| !failing.contains_key(node) && !self.nodes.contains_key(*node);
        if !used.iter().any(|node| is_well(&node)) {
            let nodes: Vec<String> = failing.keys().map(|node| (*node).clone()).collect();
            return if std::mem::replace(&mut self.said, true) {
                Vec::new()
            } else {
                vec![FleetEvent::EveryNodeFails { nodes }]
            };
        }
        let found: Vec<(String, String)> = failing
            .into_iter()
            .map(|(node, seconds)| {
                let number = count(seconds);
                (node.clone(), format!("{number} stages in a row failed there within {} s", rule.faster_than))
            })
            .collect();
        self.nodes.extend(found.iter().cloned());
        found.into_iter().map(|(node, reason)| FleetEvent::Excluded { node, reason }).collect()
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Nodes and reasons.
    pub fn reasons(&self) -> &BTreeMap<String, String> {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BadNode = BadNode { failures: 3, faster_than: 30 };

    fn failing(nodes: &[(&str, &[f64])]) -> HashMap<String, Vec<f64>> {
        nodes.iter().map(|(node, seconds)| ((*node).to_owned(), seconds.to_vec())).collect()
    }

    fn used(nodes: &[&str]) -> BTreeSet<String> {
        nodes.iter().map(|node| (*node).to_owned()).collect()
    }

    #[test]
    fn a_node_that_fails_alone_is_excluded_once() {
        let mut exclusions = Exclusions::default();
        let used = used(&["n1", "n2"]);
        let look =
            |exclusions: &mut Exclusions, seconds: &[f64]| exclusions.look(&failing(&[("n1", seconds)]), &used, RULE);
        assert_eq!(look(&mut exclusions, &[1.0, 1.0]), []);
        assert_eq!(look(&mut exclusions, &[1.0, 500.0, 1.0, 1.0]), [], "three in a row");
        let events = look(&mut exclusions, &[500.0, 1.0, 1.0, 30.0]);
        assert_eq!(
            events,
            [FleetEvent::Excluded {
                node: "n1".to_owned(),
                reason: "3 stages in a row failed there within 30 s".to_owned(),
            }]
        );
        assert_eq!(look(&mut exclusions, &[1.0; 9]), []);
        assert_eq!(exclusions.nodes(), ["n1"]);
    }

    #[test]
    fn where_every_node_fails_none_is_at_fault() {
        let mut exclusions = Exclusions::default();
        let all = failing(&[("n1", &[1.0; 3]), ("n2", &[1.0; 3])]);
        let events = exclusions.look(&all, &used(&["n1", "n2"]), RULE);
        assert!(matches!(&events[..], [FleetEvent::EveryNodeFails { nodes }] if nodes.len() == 2));
        assert_eq!(exclusions.look(&all, &used(&["n1", "n2"]), RULE), [], "said once");
        assert_eq!(exclusions.look(&all, &used(&["n1", "n2", "n3"]), RULE).len(), 2);
    }

    #[test]
    fn excluding_goes_on_only_while_another_node_is_well() {
        let mut exclusions = Exclusions::default();
        exclusions.remember("n1".to_owned(), "as before".to_owned());
        let events = exclusions.look(&failing(&[("n2", &[1.0; 3])]), &used(&["n1", "n2"]), RULE);
        assert!(matches!(events[..], [FleetEvent::EveryNodeFails { .. }]), "the excluded node is no witness");
    }
}
