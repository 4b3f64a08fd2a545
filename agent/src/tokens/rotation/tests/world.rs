//! A model of the world around the rotation: files that outlive a crash, and a controller that
//! revokes what it has replaced. At every moment it asserts that the worker holds a token that
//! opens the door.

use super::*;
use secrecy::ExposeSecret;

/// The worker, its files, its controller and the operator.
pub(super) struct World {
    pub(super) rotation: Rotation,
    pub(super) installed: SecretString,
    pub(super) kept: Option<SecretString>,
    pub(super) candidate: Option<SecretString>,
    /// What the controller accepts.
    pub(super) valid: Vec<SecretString>,
    /// What it has offered, and what that replaces.
    pub(super) open: Option<(SecretString, SecretString)>,
    pub(super) online: bool,
    pub(super) given_back: usize,
    pub(super) made: u64,
    /// The files cannot be written.
    pub(super) read_only: bool,
    /// After so many moments more the worker is killed.
    pub(super) fuse: Option<usize>,
    pub(super) moments: usize,
    pub(super) killed: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let installed = token_with(0, 0, |_| {});
        Self {
            rotation: Rotation::new(false),
            valid: vec![installed.clone()],
            installed,
            kept: None,
            candidate: None,
            open: None,
            online: false,
            given_back: 0,
            made: 0,
            read_only: false,
            fuse: None,
            moments: 0,
            killed: false,
        }
    }

    pub(super) fn make(&mut self) -> SecretString {
        self.made += 1;
        token_with(self.made, i64::try_from(self.made).unwrap() * DAY, |_| {})
    }

    pub(super) fn accepts(&self, token: &SecretString) -> bool {
        self.valid.iter().any(|valid| valid.expose_secret() == token.expose_secret())
    }

    pub(super) fn revoke(&mut self, token: &SecretString) {
        self.valid.retain(|valid| valid.expose_secret() != token.expose_secret());
    }

    pub(super) fn files(&self) -> Vec<Held> {
        let kept = self.kept.iter().map(|token| held(Origin::Kept, token));
        let candidate = self.candidate.iter().map(|token| held(Origin::Candidate, token));
        [held(Origin::Installed, &self.installed)].into_iter().chain(kept).chain(candidate).collect()
    }

    /// A moment at which the worker may be killed. Whatever else is true, it holds a token that
    /// opens the door.
    pub(super) fn moment(&mut self) -> bool {
        assert!(self.files().iter().any(|held| self.accepts(held.token.secret())), "the node is locked out");
        self.moments += 1;
        if self.fuse.take_if(|fuse| *fuse == 0).is_some() {
            self.crash();
            self.killed = true;
        }
        if let Some(fuse) = &mut self.fuse {
            *fuse -= 1;
        }
        !self.killed
    }

    pub(super) fn crash(&mut self) {
        self.rotation = Rotation::new(false);
        self.online = false;
    }

    /// Does what the machine says, one moment before and one after each.
    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if !self.moment() {
                return;
            }
            match effect {
                Effect::Store { offer, token } => {
                    let outcome = if self.read_only {
                        Err(ErrorReport::new(ErrorCode::FileFailed, "read-only"))
                    } else {
                        self.candidate = Some(token);
                        Ok(())
                    };
                    if self.moment() {
                        self.step(|rotation| rotation.stored(offer, outcome));
                    }
                }
                Effect::Redial => {
                    self.online = false;
                    self.dial();
                }
                Effect::Keep(_) | Effect::Discard if self.read_only => {}
                Effect::Keep(origin) => {
                    match origin {
                        Origin::Candidate => self.kept = self.candidate.take(),
                        Origin::Kept => self.candidate = None,
                        Origin::Installed => (self.kept, self.candidate) = (None, None),
                    }
                    self.step(Rotation::kept);
                }
                Effect::Discard => self.candidate = None,
                Effect::GiveBack { .. } => {
                    assert!(self.online, "given back to nobody");
                    self.given_back += 1;
                    if let Some((offered, _)) = self.open.take() {
                        self.revoke(&offered);
                    }
                }
            }
            if !self.moment() {
                return;
            }
        }
    }

    pub(super) fn step(&mut self, step: impl FnOnce(Rotation) -> (Rotation, Vec<Effect>)) {
        let (rotation, effects) = step(std::mem::take(&mut self.rotation));
        self.rotation = rotation;
        self.perform(effects);
    }

    /// One try to connect: the controller decides by the token.
    pub(super) fn dial(&mut self) {
        let files = self.files();
        self.rotation = std::mem::take(&mut self.rotation).dialling(files);
        let token = self.rotation.in_use().unwrap().token.secret().clone();
        if !self.accepts(&token) {
            return self.lose(&refusal(ErrorCode::TokenRevoked));
        }
        // As soon as it has heard `node.register`, the controller revokes what was replaced; its
        // answer may never arrive.
        let takes = |open: &mut (SecretString, SecretString)| open.0.expose_secret() == token.expose_secret();
        if let Some((_, replaced)) = self.open.take_if(takes) {
            self.revoke(&replaced);
        }
        if self.moment() {
            self.online = true;
            self.step(|rotation| rotation.welcomed(Instant::now()));
        }
    }

    pub(super) fn lose(&mut self, setback: &Setback) {
        self.online = false;
        self.step(|rotation| rotation.lost(setback));
    }

    /// The controller offers another token in place of the one in use; an earlier offer is revoked.
    pub(super) fn offer(&mut self, accept: bool) {
        let Some(in_use) = self.rotation.in_use().filter(|_| self.online) else { return };
        let in_use = in_use.token.secret().clone();
        if let Some((before, _)) = self.open.take() {
            self.revoke(&before);
        }
        let token = self.make();
        if accept {
            self.valid.push(token.clone());
            self.open = Some((token.clone(), in_use));
        }
        let later = Instant::now() + Duration::from_secs(1000 * DAY.unsigned_abs());
        self.step(|rotation| rotation.offered(Uuid::nil(), offer(&token), Timestamp::from_millis(0), later));
    }

    /// From now on all is well: so many tries are enough.
    pub(super) fn recover(&mut self) {
        (self.killed, self.fuse, self.read_only) = (false, None, false);
        for _ in 0..6 {
            if self.online {
                return;
            }
            self.dial();
        }
        panic!("the node does not come back: {:?}", self.files().len());
    }
}
