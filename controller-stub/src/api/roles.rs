//! What a role lets its bearer do with the nodes of their organisation: the one table. Nobody does
//! anything to another organisation's nodes, whatever their role.

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Look at nodes, their transitions, their installation and their events.
    See,
    /// Register nodes, mint and revoke their tokens, take them out of service and put them back,
    /// and see who did so.
    Manage,
    /// Decide what concerns every organisation of this controller.
    Operate,
}

/// Whoever belongs to the organisation may look, with any role or none.
const MEMBERS: &[Permission] = &[Permission::See];

const ROLES: [(&str, &[Permission]); 3] = [
    ("universe.owner", &[Permission::See, Permission::Manage, Permission::Operate]),
    ("organization.owner", &[Permission::See, Permission::Manage]),
    ("organization.admin", &[Permission::See, Permission::Manage]),
];

/// Whether one of `roles` lets its bearer do this.
pub(crate) fn allow(roles: &[String], permission: Permission) -> bool {
    let granted = ROLES.iter().filter(|(role, _)| roles.iter().any(|it| it == role)).flat_map(|(_, it)| *it);
    granted.chain(MEMBERS).any(|it| *it == permission)
}

/// The roles that let their bearer do this, for a refusal's words.
pub(crate) fn that_allow(permission: Permission) -> Vec<&'static str> {
    ROLES.iter().filter(|(_, granted)| granted.contains(&permission)).map(|(role, _)| *role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_see_and_owners_and_admins_manage() {
        for (role, manages) in [
            ("universe.owner", true),
            ("organization.owner", true),
            ("organization.admin", true),
            ("organization.member", false),
            ("organization.viewer", false),
            ("ORGANIZATION.OWNER", false),
            ("", false),
        ] {
            let roles = [role.to_owned()];
            assert!(allow(&roles, Permission::See), "{role}");
            assert_eq!(allow(&roles, Permission::Manage), manages, "{role}");
        }
        assert!(allow(&[], Permission::See) && !allow(&[], Permission::Manage));
        assert_eq!(that_allow(Permission::Operate), ["universe.owner"]);
    }
}
