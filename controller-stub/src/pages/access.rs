//! What the signed-in user's token may do, and who else is signed in.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    Pages,
    frame::{Frame, Tab},
    session::Visitor,
    words,
};
use crate::{
    api::{
        error::Rejection,
        roles::{self, Permission},
    },
    clock,
    store::Session,
};

struct Right {
    name: &'static str,
    about: &'static str,
    has: bool,
    /// The roles that give it.
    roles: String,
}

#[derive(Template)]
#[template(path = "pages/access.html")]
struct Access {
    frame: Frame,
    session: Session,
    rights: Vec<Right>,
    sessions: Vec<Session>,
}

pub(super) async fn show(State(_): State<Arc<Pages>>, visitor: Visitor) -> Response {
    let built = async {
        let all = visitor.app().store.sessions(&visitor.user().org_id, clock::now()).await?;
        let frame = Frame::new(&visitor.scene, Tab::Access);
        let own = visitor.user().sub.clone();
        let right = |name, about, permission: Permission| Right {
            name,
            about,
            has: visitor.may(permission),
            roles: match roles::that_allow(permission) {
                _ if permission == Permission::See => "any role of the organisation".to_owned(),
                roles => roles.join(", "),
            },
        };
        Ok::<_, Rejection>(Access {
            rights: vec![
                right("see", "nodes, their history, installations, updates and events", Permission::See),
                right(
                    "manage",
                    "register, rename, label, decommission nodes; tokens; maintenance; rollouts; dead letters; the audit trail",
                    Permission::Manage,
                ),
                right(
                    "operate",
                    "what concerns every organisation of this controller: resume delivery",
                    Permission::Operate,
                ),
            ],
            // Who else is signed in is for those who may see what others did.
            sessions: all.into_iter().filter(|it| frame.manages || it.user == own).collect(),
            session: visitor.session.clone(),
            frame,
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
