//! A rollout: how an organisation's nodes, or those of a group, come to another version. Pure: no
//! I/O, clock or chance. What must outlive the process is all in [`Rollout`] and [`Member`];
//! `rollouts` keeps and carries it out.
//!
//! The parts: `model` has the words, `plan` says who goes when, `criteria` when it stops by itself,
//! `machine` how it goes on. `member` says how a node of it stands, `turn` is one look at it, and
//! `told` is what a node's worker is to be told.
//!
//! ```text
//! Draft ─▶ Canary ─▶ Soaking ─▶ Rolling(1) ─▶ … ─▶ Rolling(n) ─▶ Finishing ─▶ Completed
//!
//! from Canary to Finishing:  a criterion                    ─▶ Halted
//!                            somebody, or too few answers   ─▶ Paused ─ resume ─▶ where it was
//! from any:                  abort                          ─▶ Aborted
//!                            abort with revert              ─▶ Reverting ─▶ Aborted
//! not under way:             a newer rollout                ─▶ Superseded
//! ```

mod criteria;
mod machine;
mod member;
mod model;
mod plan;
#[cfg(test)]
mod tests;
mod told;
mod turn;

pub(crate) use machine::{Order, Refusal, obey, room};
pub(crate) use member::{Sight, end, revert};
pub(crate) use model::{Group, Member, Rollout, Settings, Share, Skip, Stage, State, Tally, version_of};
pub(crate) use plan::{Candidate, plan};
pub(crate) use told::{Told, owed};
pub(crate) use turn::{Look, let_go, take_in};
