//! Sign-in to the pages through an identity provider (OpenID Connect): what is configured of it, checked. What
//! a provider must be to be believed, `crate::oidc` decides.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use secrecy::SecretString;

use super::{ConfigError, Settings, duration, listed, value_error};
use crate::loopback::is_this_machine;

/// The roles that a value of a claim may stand for.
const ROLES: [&str; 5] = [
    "universe.owner",
    "organization.owner",
    "organization.admin",
    "organization.member",
    "organization.viewer",
];

/// Limits of a session's length.
const SESSIONS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(30 * 86_400));

/// An identity provider, and what its claims mean here.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// The issuer, as the provider writes it.
    pub issuer: String,
    /// The id under which this controller is registered with it.
    pub client_id: String,
    /// What the provider knows this controller by; none for a public client.
    pub client_secret: Option<SecretString>,
    /// Where that stands, when not in `client_secret`.
    pub client_secret_file: Option<PathBuf>,
    /// What the button on the sign-in page calls the provider.
    pub name: String,
    /// The scopes to ask for, with blanks between them.
    pub scopes: String,
    /// The claim with the user's id.
    pub user_claim: String,
    /// The claim with the user's organisation; everybody is in the controller's own when unset.
    pub org_claim: Option<String>,
    /// The claim whose values stand for roles.
    pub role_claim: String,
    /// The values of that claim that let somebody in, each with its role.
    pub roles: Vec<(String, String)>,
    /// How long a session lasts.
    pub session: Duration,
}

impl Oidc {
    /// A provider with the built-in values.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        let issuer = issuer.into();
        let host = issuer.parse::<Url>().ok().and_then(|url| url.host_str().map(str::to_owned));
        Self {
            client_id: client_id.into(),
            client_secret: None,
            client_secret_file: None,
            name: host.unwrap_or_else(|| issuer.clone()),
            scopes: "openid profile email".to_owned(),
            user_claim: "sub".to_owned(),
            org_claim: None,
            role_claim: "roles".to_owned(),
            roles: Vec::new(),
            session: Duration::from_secs(12 * 3600),
            issuer,
        }
    }

    /// The provider that was configured, if one was.
    pub(super) fn check(settings: &mut Settings) -> Result<Option<Self>, ConfigError> {
        let taken = |setting: &mut Option<String>| setting.take().map(|text| text.trim().to_owned());
        let Some(issuer) = taken(&mut settings.oidc_issuer) else {
            if settings.oidc_client_id.is_some() {
                return Err(value_error("OIDC_ISSUER", "is missing: OIDC_CLIENT_ID is set"));
            }
            return Ok(None);
        };
        refuse_bad_issuer(&issuer)?;
        let client_id = taken(&mut settings.oidc_client_id)
            .ok_or_else(|| value_error("OIDC_CLIENT_ID", "is missing: OIDC_ISSUER is set"))?;
        let mut oidc = Self::new(issuer, client_id);
        oidc.client_secret = settings.oidc_client_secret.take().map(client_secret).transpose()?;
        oidc.client_secret_file = taken(&mut settings.oidc_client_secret_file).map(PathBuf::from);
        for (setting, kept) in [
            (&mut settings.oidc_name, &mut oidc.name),
            (&mut settings.oidc_user_claim, &mut oidc.user_claim),
            (&mut settings.oidc_role_claim, &mut oidc.role_claim),
        ] {
            if let Some(text) = taken(setting) {
                *kept = text;
            }
        }
        oidc.org_claim = taken(&mut settings.oidc_org_claim);
        if let Some(scopes) = taken(&mut settings.oidc_scopes) {
            oidc.scopes = scopes.split([' ', ',']).filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
            if !oidc.scopes.split(' ').any(|scope| scope == "openid") {
                return Err(value_error(
                    "OIDC_SCOPES",
                    "must name openid, without which there is no ID token",
                ));
            }
        }
        let roles = taken(&mut settings.oidc_roles).unwrap_or_default();
        oidc.roles = listed(&roles).map(role).collect::<Result<_, _>>()?;
        if oidc.roles.is_empty() {
            return Err(value_error(
                "OIDC_ROLES",
                "is missing: without it nobody gets in; e.g. gpu-admins=organization.admin",
            ));
        }
        if let Some(session) = taken(&mut settings.oidc_session) {
            oidc.session = duration("OIDC_SESSION", &session, SESSIONS)?;
        }
        Ok(Some(oidc))
    }
}

/// The issuer is compared with what the provider says letter by letter, so it stays a text.
fn refuse_bad_issuer(issuer: &str) -> Result<(), ConfigError> {
    const NAME: &str = "OIDC_ISSUER";
    let url: Url = super::web_url(NAME, issuer)?;
    if url.scheme() != "https" && !is_this_machine(&url) {
        return Err(value_error(NAME, "must begin with https://; plain HTTP is for this machine alone"));
    }
    Ok(())
}

fn client_secret(text: String) -> Result<SecretString, ConfigError> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(value_error("OIDC_CLIENT_SECRET", "is blank or has control characters"));
    }
    Ok(SecretString::from(text))
}

/// `VALUE=ROLE`: a value of the claim, and the role that it stands for.
fn role(entry: &str) -> Result<(String, String), ConfigError> {
    let known = |role: &str| ROLES.contains(&role);
    match entry.rsplit_once('=').map(|(value, role)| (value.trim(), role.trim())) {
        Some((value, role)) if !value.is_empty() && known(role) => Ok((value.to_owned(), role.to_owned())),
        _ => Err(value_error(
            "OIDC_ROLES",
            format!("takes VALUE=ROLE with a role of {}, not `{entry}`", ROLES.join(", ")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            oidc_issuer: Some("https://id.example/realms/gpu".into()),
            oidc_client_id: Some("aio".into()),
            oidc_roles: Some("cn=admins=organization.admin, staff = organization.viewer,".into()),
            ..Settings::default()
        }
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        Oidc::check(&mut settings).unwrap_err().to_string()
    }

    #[test]
    fn a_provider_is_named_by_its_host_and_values_of_the_claim_stand_for_roles() {
        let oidc = Oidc::check(&mut settings()).unwrap().unwrap();
        assert_eq!((oidc.name.as_str(), oidc.user_claim.as_str()), ("id.example", "sub"));
        let pair = |value: &str, role: &str| (value.to_owned(), role.to_owned());
        assert_eq!(
            oidc.roles,
            [pair("cn=admins", "organization.admin"), pair("staff", "organization.viewer")]
        );
        assert!(Oidc::check(&mut Settings::default()).unwrap().is_none());
    }

    #[test]
    fn what_would_let_nobody_or_anybody_in_is_refused() {
        assert!(refused(|it| it.oidc_issuer = None).contains("OIDC_ISSUER is missing"));
        assert!(refused(|it| it.oidc_client_id = None).contains("OIDC_CLIENT_ID is missing"));
        assert!(refused(|it| it.oidc_roles = None).contains("OIDC_ROLES is missing"));
        for role in ["admins", "admins=organisation.admin", "=organization.admin"] {
            assert!(refused(|it| it.oidc_roles = Some(role.into())).contains("VALUE=ROLE"), "{role}");
        }
        assert!(refused(|it| it.oidc_scopes = Some("email".into())).contains("openid"));
        assert!(refused(|it| it.oidc_client_secret = Some(" ".into())).contains("blank"));
        for issuer in ["http://id.example", "id.example", "https://id.example/?a=b", "https://u@id.example"] {
            assert!(refused(|it| it.oidc_issuer = Some(issuer.into())).contains("OIDC_ISSUER"), "{issuer}");
        }
        let mut local = settings();
        local.oidc_issuer = Some("http://127.0.0.1:8080/realms/gpu".into());
        assert!(Oidc::check(&mut local).is_ok());
    }
}
