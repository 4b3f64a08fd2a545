//! Which health of a node's GPUs was told last, and of which nodes another is to be told. Pure: `keeper`
//! writes it down with the event. A node that nothing was told of counts as well, so a fleet that is well
//! tells nothing when it comes. What a worker says is damped already, and a node that is away says nothing.

use std::collections::HashMap;

use aio_protocol::{
    ids::NodeId,
    telemetry::{Health, HealthSummary},
};

/// What was told, where it is not `ok`.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<NodeId, Health>);

/// Another health than the one that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub node: NodeId,
    pub from: Health,
    pub health: HealthSummary,
}

impl Told {
    pub(super) fn new(told: HashMap<NodeId, Health>) -> Self {
        Self(told)
    }

    /// What is to be told when connected workers say this, in an order that is always the same.
    pub(super) fn news(&self, summaries: Vec<(NodeId, HealthSummary)>) -> Vec<News> {
        let mut news: Vec<_> = summaries
            .into_iter()
            .map(|(node, health)| News { from: self.of(&node), node, health })
            .filter(|news| news.from != news.health.state)
            .collect();
        news.sort_by(|a, b| a.node.cmp(&b.node));
        news
    }

    /// Notes that news was told; or that there is nobody to tell it of.
    pub(super) fn done(&mut self, news: &News) {
        match news.health.state {
            Health::Ok => self.0.remove(&news.node),
            health => self.0.insert(news.node.clone(), health),
        };
    }

    fn of(&self, node: &NodeId) -> Health {
        self.0.get(node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_health_is_told_once_and_one_that_is_well_from_the_beginning_never() {
        let node = |byte| NodeId::from_bytes([byte; 12]);
        let is = |byte, state| (node(byte), HealthSummary { state, ..HealthSummary::default() });
        let mut told = Told::new(HashMap::from([(node(3), Health::Degraded)]));
        let said = vec![is(3, Health::Degraded), is(2, Health::Unhealthy), is(1, Health::Ok)];
        let news = told.news(said.clone());
        assert_eq!(
            news.iter().map(|it| (it.node.clone(), it.from)).collect::<Vec<_>>(),
            [(node(2), Health::Ok)]
        );
        assert_eq!(told.news(said.clone()), news, "until it is written down");
        news.iter().for_each(|news| told.done(news));
        assert_eq!(told.news(said), []);
        assert_eq!(told.news(vec![]), [], "a node that is away says nothing");
        let better = told.news(vec![is(2, Health::Ok), is(3, Health::Unhealthy)]);
        let moves: Vec<_> = better.iter().map(|it| (it.from, it.health.state)).collect();
        assert_eq!(moves, [(Health::Unhealthy, Health::Ok), (Health::Degraded, Health::Unhealthy)]);
        better.iter().for_each(|news| told.done(news));
        assert_eq!(told.0, HashMap::from([(node(3), Health::Unhealthy)]));
    }
}
