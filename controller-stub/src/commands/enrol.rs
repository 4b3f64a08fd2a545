//! Tokens for nodes, for new ones and for those that are there: what each machine is installed with, or
//! installed anew. Behind the back of a server that may run.

use aio_protocol::{
    node::{NodeRole, NodeStatus, Owner},
    release::ReleaseVersion,
    time::Timestamp,
};
use serde::Serialize;

use super::{
    COMMAND_LINE, CommandError, DEPLOYMENT, For, names,
    nodes::{all_nodes, find},
    on_command_line, open,
};
use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    enrolment::{Enroller, Enrolment},
    lifecycle,
    node::{Node, NodeName},
    random,
    releases::Releases,
    secrets::Secrets,
    store::{IssuedToken, Newcomer, NodeFilter},
    tls::Authority,
    tokens::Tokens,
};

/// What the answer is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be read.
    #[default]
    Reading,
    /// An inventory: each name is a host of it.
    Inventory,
    /// User-data of one machine, which cannot do without an install script.
    UserData,
}

/// Which tokens.
#[derive(Debug, Clone, Default)]
pub struct Issue {
    /// Whose nodes.
    pub whose: For,
    /// How long they last.
    pub lasts_secs: u64,
    /// Which release they install; the server's default if unsaid.
    pub version: Option<ReleaseVersion>,
    /// What the answer is for.
    pub purpose: Purpose,
}

/// Which nodes that are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Each that is in service.
    All,
    /// These, by id or name.
    These(Vec<String>),
}

/// A node and its new token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddedNode {
    /// The node.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its token: a secret.
    pub token: String,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// The one command to run on the node; it holds the token.
    pub command: String,
    /// The same for a machine that has nothing yet, if the release's installer is published.
    pub install_script: Option<String>,
}

/// Nodes that got tokens together.
pub struct Added {
    /// In the order in which they were named.
    pub nodes: Vec<AddedNode>,
    /// The certificate (PEM) that they are to trust the controller by, where the authority is the
    /// controller's own.
    pub authority: Option<String>,
}

impl Purpose {
    fn check(self, names: &[String]) -> Result<(), CommandError> {
        match self {
            Self::Reading => Ok(()),
            Self::Inventory => names::hosts(names),
            Self::UserData => names::one_machine(names),
        }
    }
}

/// Registers a node of each name and makes its token: all in one transaction, or nothing. A name
/// that cannot be one, that stands twice, or that a node in service has, refuses them all.
pub async fn add_nodes(config: &Config, names: Vec<String>, issue: Issue) -> Result<Added, CommandError> {
    issue.purpose.check(&names)?;
    let names = names.into_iter().map(NodeName::try_from).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(CommandError::Name)?.into_iter().map(String::from).collect();
    let names = names::each_once(names)?;
    let office = Office::open(config, issue).await?;
    let owner = office.issue.whose.clone().or_default(&office.enroller.store).await?;
    let (mut newcomers, mut nodes) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for name in names {
        let now = clock::now();
        let node =
            Node::registered(random::object_id(now)?, name, vec![NodeRole::Worker], owner.clone(), now);
        let (added, token) = office.draw_up(&node).await?;
        nodes.push(added);
        newcomers.push(Newcomer {
            step: lifecycle::registration(&node, COMMAND_LINE),
            node,
            token: Some(token),
        });
    }
    let store = on_command_line(&office.enroller.store, &owner.org_id, "node.register", None, None);
    let taken = store.enrol_nodes(&newcomers).await?;
    if !taken.is_empty() {
        return Err(CommandError::Taken(taken));
    }
    Ok(office.gives(nodes))
}

/// Makes a token for each of the nodes; those that they have stay valid. With these, machines are
/// installed anew: with another release, or after their token was lost.
pub async fn add_tokens(config: &Config, which: Which, issue: Issue) -> Result<Added, CommandError> {
    let office = Office::open(config, issue).await?;
    let store = &office.enroller.store;
    let owner = office.issue.whose.clone().or_default(store).await?;
    let nodes = match which {
        Which::These(named) => {
            let mut nodes = Vec::with_capacity(named.len());
            for name in named {
                nodes.push(find(store, &owner.org_id, &name).await?);
            }
            nodes
        }
        Which::All => all_nodes(store, &owner.org_id, NodeFilter::default())
            .await?
            .into_iter()
            .filter(|node| node.status != NodeStatus::Inactive)
            .collect(),
    };
    if let Some(inactive) = nodes.iter().find(|node| node.status == NodeStatus::Inactive) {
        return Err(CommandError::Inactive(inactive.id.clone()));
    }
    let names = names::each_once(nodes.iter().map(|node| node.name.clone()).collect())?;
    office.issue.purpose.check(&names)?;
    let (mut added, mut tokens) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
    for node in &nodes {
        let (node, token) = office.draw_up(node).await?;
        added.push(node);
        tokens.push(token);
    }
    // Nobody has seen one of them yet, so one that is kept alone is of no use to anybody.
    for (token, node) in tokens.into_iter().zip(&nodes) {
        let store = on_command_line(store, &node.owner.org_id, "token.issue", Some(&node.id), None);
        store.add_token(token).await?;
    }
    Ok(office.gives(added))
}

/// What makes tokens as the server itself would.
struct Office {
    enroller: Enroller,
    issue: Issue,
}

impl Office {
    async fn open(config: &Config, issue: Issue) -> Result<Self, CommandError> {
        let tokens = Tokens::new(Secrets::load(config)?.tokens);
        tokens.require_signing()?;
        let store = open(config).await?;
        let deployment = match store.setting(DEPLOYMENT).await? {
            Some(text) => serde_json::from_str(&text)?,
            None if config.public_url.is_some() => {
                let own = config.tls_self_signed.then(|| Authority::open(&config.data_dir)).transpose()?;
                Deployment::new(config, config.listen, own.map(|own| own.published()))
            }
            None => return Err(CommandError::NeverServed),
        };
        let releases = Releases::new(deployment.releases.clone(), deployment.checksums.clone());
        Ok(Self { enroller: Enroller { store, tokens, releases, deployment }, issue })
    }

    async fn draw_up(&self, node: &Node) -> Result<(AddedNode, IssuedToken), CommandError> {
        let Issue { version, lasts_secs, purpose, .. } = &self.issue;
        let drawn_up =
            self.enroller.draw_up(node, version.clone(), *lasts_secs, COMMAND_LINE, clock::now()).await?;
        let (Enrolment { token, expires_at, install_script, daemon_version, .. }, issued) = drawn_up;
        if *purpose == Purpose::UserData && install_script.is_none() {
            return Err(CommandError::NoScript(daemon_version));
        }
        let added = AddedNode {
            node_id: node.id.to_string(),
            name: node.name.clone(),
            owner: node.owner.clone(),
            command: format!("sudo aio-worker install --token {token}"),
            token,
            expires_at,
            install_script,
        };
        Ok((added, issued))
    }

    fn gives(&self, nodes: Vec<AddedNode>) -> Added {
        let authority = self.enroller.deployment.authority.as_ref();
        Added { nodes, authority: authority.map(|authority| authority.pem.clone()) }
    }
}
