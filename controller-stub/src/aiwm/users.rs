//! Who asks, by AIWM's roles: `{universe|organization}.owner`, and owner, editor and viewer of an
//! organisation, a group or as a member. Whoever has none of them may do nothing.

use std::sync::Arc;

use aio_protocol::error_code::ErrorCode;
use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};

use super::dialect::Dialect;
use crate::{
    api::{
        auth::{self, Person},
        error::Rejection,
    },
    node::Node,
};

/// Lets whoever stands above all organisations act in one of them.
const ORGANISATION: HeaderName = HeaderName::from_static("x-organization-id");

/// What somebody may do with the nodes of their organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Viewer,
    /// Registers workers, which an owner approves.
    Editor,
    Owner,
}

/// A user with a role, in the organisation that they act in.
pub(super) struct User {
    pub person: Person,
    pub rank: Rank,
}

impl FromRequestParts<Arc<Dialect>> for User {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, dialect: &Arc<Dialect>) -> Result<Self, Rejection> {
        let mut person = auth::person(parts, &dialect.app)?;
        let Some(rank) = rank(&person.user.roles) else {
            return Err(Rejection::forbidden(ErrorCode::Forbidden, "this takes one of AIWM's roles"));
        };
        if person.user.roles.iter().any(|role| role.starts_with("universe."))
            && let Some(named) = parts.headers.get(ORGANISATION)
        {
            let named = named.to_str().ok().and_then(|text| text.parse().ok());
            let wrong = || Rejection::field("X-Organization-Id: must be the id of an organisation");
            person.user.org_id = named.ok_or_else(wrong)?;
        }
        Ok(Self { person, rank })
    }
}

impl User {
    /// Refuses whoever is less.
    pub(super) fn at_least(&self, rank: Rank) -> Result<(), Rejection> {
        if self.rank >= rank {
            return Ok(());
        }
        Err(Rejection::forbidden(ErrorCode::Forbidden, "your role does not allow this"))
    }

    /// Refuses whoever neither owns the organisation's nodes nor registered this one.
    pub(super) fn owner_or_creator(&self, node: &Node) -> Result<(), Rejection> {
        if self.rank == Rank::Owner || (self.rank == Rank::Editor && node.owner.user_id == self.person.sub) {
            return Ok(());
        }
        let message = "this takes an owner, or who registered the node";
        Err(Rejection::forbidden(ErrorCode::Forbidden, message))
    }
}

fn rank(roles: &[String]) -> Option<Rank> {
    let of = |role: &String| match role.split_once('.')? {
        ("universe" | "organization", "owner") => Some(Rank::Owner),
        ("organization", "editor") | ("group" | "member", "owner" | "editor") => Some(Rank::Editor),
        ("organization" | "group" | "member", "viewer") => Some(Rank::Viewer),
        _ => None,
    };
    roles.iter().filter_map(of).max()
}

/// Whether one of these roles lets its bearer look.
pub(super) fn may_look(roles: &[String]) -> bool {
    rank(roles).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_worth_what_its_scope_and_its_name_say() {
        for (role, expected) in [
            ("universe.owner", Some(Rank::Owner)),
            ("organization.owner", Some(Rank::Owner)),
            ("organization.editor", Some(Rank::Editor)),
            ("organization.viewer", Some(Rank::Viewer)),
            ("group.owner", Some(Rank::Editor)),
            ("member.editor", Some(Rank::Editor)),
            ("member.viewer", Some(Rank::Viewer)),
            ("universe.viewer", None),
            ("organization.admin", None),
            ("owner", None),
            ("", None),
        ] {
            assert_eq!(rank(&[role.to_owned()]), expected, "{role}");
        }
        assert_eq!(rank(&[]), None);
        assert_eq!(rank(&["member.viewer".into(), "group.editor".into()]), Some(Rank::Editor));
    }
}
