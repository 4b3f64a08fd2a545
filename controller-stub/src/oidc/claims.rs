//! Who somebody is here, by the claims of an ID token that is believed. Whoever has no value of the role's claim
//! that is configured does not come in; nothing is guessed for a claim that is missing.

use aio_protocol::ids::OwnerId;
use serde_json::{Map, Value};

use crate::config;

/// Somebody whom the provider knows, as they are known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub user: OwnerId,
    /// The controller's own when no claim names it.
    pub org: Option<OwnerId>,
    pub roles: Vec<String>,
}

/// Why somebody whom the provider knows does not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error("the ID token has no claim `{0}`")]
    Missing(String),
    #[error("the claim `{0}` is no id: 1 to 255 letters, digits or any of ._@|+:/=~-")]
    NoId(String),
    #[error("the provider does not say that the address in the claim `{0}` is verified")]
    Unverified(String),
    #[error("no value of the claim `{0}` is one of OIDC_ROLES")]
    NoRole(String),
}

/// Who the bearer of these claims is.
pub(super) fn identity(claims: &Map<String, Value>, config: &config::Oidc) -> Result<Identity, NotAdmitted> {
    let user = id(claims, &config.user_claim)?;
    // Whoever may write any address into their account would be whoever has it.
    if config.user_claim == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Err(NotAdmitted::Unverified(config.user_claim.clone()));
    }
    let org = config.org_claim.as_deref().map(|claim| id(claims, claim)).transpose()?;
    let missing = || NotAdmitted::Missing(config.role_claim.clone());
    let values = texts(claim(claims, &config.role_claim).ok_or_else(missing)?);
    let mut roles: Vec<String> = Vec::new();
    for (value, role) in &config.roles {
        if values.contains(&value.as_str()) && !roles.contains(role) {
            roles.push(role.clone());
        }
    }
    if roles.is_empty() {
        return Err(NotAdmitted::NoRole(config.role_claim.clone()));
    }
    Ok(Identity { user, org, roles })
}

/// A claim by its name, or by its way through objects: `realm_access.roles`.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value).filter(|value| !value.is_null());
    }
    // A name may have points of its own, as URLs do.
    name.match_indices('.').find_map(|(at, _)| {
        let inner = claims.get(name.get(..at)?)?.as_object()?;
        claim(inner, name.get(at + 1..)?)
    })
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A claim that is one id.
fn id(claims: &Map<String, Value>, name: &str) -> Result<OwnerId, NotAdmitted> {
    let value = claim(claims, name).ok_or_else(|| NotAdmitted::Missing(name.to_owned()))?;
    let [text] = texts(value)[..] else { return Err(NotAdmitted::NoId(name.to_owned())) };
    text.parse().map_err(|_| NotAdmitted::NoId(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> config::Oidc {
        let mut config = config::Oidc::new("https://id.example", "aio");
        config.roles = vec![
            ("admins".to_owned(), "organization.admin".to_owned()),
            ("staff".to_owned(), "organization.viewer".to_owned()),
        ];
        config
    }

    fn of(claims: Value, config: &config::Oidc) -> Result<Identity, NotAdmitted> {
        identity(claims.as_object().unwrap(), config)
    }

    #[test]
    fn roles_come_from_the_values_that_are_configured_alone() {
        let roles = |roles: Value| of(json!({"sub": "ann", "roles": roles}), &config()).map(|it| it.roles);
        assert_eq!(roles(json!("staff")).unwrap(), ["organization.viewer"]);
        assert_eq!(
            roles(json!(["x", "staff", "admins", 7])).unwrap(),
            ["organization.admin", "organization.viewer"]
        );
        for none in [
            json!([]),
            json!("x"),
            json!("admins staff"),
            json!("organization.admin"),
            json!("ADMINS"),
            json!({"admins": true}),
            json!(true),
        ] {
            assert_eq!(roles(none.clone()), Err(NotAdmitted::NoRole("roles".to_owned())), "{none}");
        }
        let missing = Err(NotAdmitted::Missing("roles".to_owned()));
        assert_eq!(of(json!({"sub": "ann"}), &config()), missing);
        assert_eq!(of(json!({"sub": "ann", "roles": null}), &config()), missing);
    }

    #[test]
    fn a_claim_is_found_by_its_name_and_by_its_way() {
        for (name, claims) in [
            ("realm_access.roles", json!({"sub": "ann", "realm_access": {"roles": ["staff"]}})),
            ("https://acme.example/roles", json!({"sub": "ann", "https://acme.example/roles": "staff"})),
            ("a.b.c", json!({"sub": "ann", "a.b": {"c": "staff"}, "a": {"x": 1}})),
        ] {
            let mut config = config();
            config.role_claim = name.to_owned();
            assert!(of(claims, &config).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_organisation_and_a_user_are_never_guessed() {
        let mut config = config();
        config.org_claim = Some("tenant".to_owned());
        let admitted = of(json!({"sub": "auth0|7", "tenant": "acme", "roles": "staff"}), &config).unwrap();
        assert_eq!(
            (admitted.user.as_str(), admitted.org.as_ref().map(OwnerId::as_str)),
            ("auth0|7", Some("acme"))
        );
        let refused = |claims: Value| of(claims, &config).unwrap_err();
        let missing = |name: &str| NotAdmitted::Missing(name.to_owned());
        assert_eq!(refused(json!({"sub": "ann", "roles": "staff"})), missing("tenant"));
        assert_eq!(refused(json!({"tenant": "acme", "roles": "staff"})), missing("sub"));
        for tenant in [json!(["acme", "evil"]), json!([]), json!(7), json!("a b"), json!("")] {
            let refused = refused(json!({"sub": "ann", "tenant": tenant, "roles": "staff"}));
            assert_eq!(refused, NotAdmitted::NoId("tenant".to_owned()), "{tenant}");
        }
    }

    #[test]
    fn an_address_counts_once_it_is_verified() {
        let mut config = config();
        config.user_claim = "email".to_owned();
        let with = |verified: Value| {
            of(json!({"email": "ann@acme.example", "email_verified": verified, "roles": "staff"}), &config)
        };
        assert_eq!(with(json!(true)).unwrap().user.as_str(), "ann@acme.example");
        for verified in [json!(false), json!(null), json!("true")] {
            assert_eq!(with(verified), Err(NotAdmitted::Unverified("email".to_owned())));
        }
    }
}
