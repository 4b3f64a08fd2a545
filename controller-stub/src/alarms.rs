//! What a person should look at. `survey` finds what is wrong, in the words of `findings` (pure), `evaluator`
//! (pure) says when that becomes an alarm and when it is over, and `keeper` writes both down with the events
//! that they owe; so it does with another health, which `healths` (pure) finds. `model` has what alarms are.

pub(crate) mod evaluator;
mod findings;
mod healths;
pub(crate) mod keeper;
pub(crate) mod model;
mod survey;
