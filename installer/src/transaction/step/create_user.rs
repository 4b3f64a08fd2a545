//! Makes the daemon's system user after its declaration. The way back is the system's own tools
//! again; the backups that such tools leave beside the account files are put back as they were.

use std::path::PathBuf;

use aio_host::layout::USER;

use super::action::Action;
use crate::{
    failure::Failure,
    machine::{accounts, host::Host},
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// The account files, of which a sparse system has not all.
const ACCOUNT_FILES: [&str; 4] = ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];

/// What account tools write beside them.
const TRACES: [&str; 5] = ["etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/.pwd.lock"];

/// Makes the user and the group that `declaration` names.
#[derive(Debug)]
pub(crate) struct CreateUser {
    pub(crate) declaration: PathBuf,
}

impl Action for CreateUser {
    const NAME: &'static str = "create_user";

    fn summary(&self) -> String {
        format!("create the system user {USER}")
    }

    fn way_back(&self, host: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let mut undo = Vec::new();
        if !host.lists("etc/passwd", USER) {
            undo.push(Undo::RemoveUser { name: USER.to_owned() });
        }
        if !host.lists("etc/group", USER) {
            undo.push(Undo::RemoveGroup { name: USER.to_owned() });
        }
        let root = host.layout.root();
        let absent = ACCOUNT_FILES.iter().map(|path| root.join(path)).filter(|path| !path.exists());
        undo.extend(absent.map(|path| Undo::RemoveFile { path }));
        let dir = root.join("etc");
        let known = accounts::stages(&dir);
        undo.push(Undo::UntilCommitted { was: Box::new(Undo::RemoveStages { dir, known }) });
        for path in TRACES {
            // Once committed, later edits by others are in these, too.
            undo.push(match Undo::of_file(&root.join(path), copies)? {
                absent @ Undo::RemoveFile { .. } => absent,
                present => Undo::UntilCommitted { was: Box::new(present) },
            });
        }
        Ok(undo)
    }

    async fn apply(&self, work: &Work<'_>, _: Place) -> Result<(), Failure> {
        work.host.accounts.create(&self.declaration).await
    }
}
