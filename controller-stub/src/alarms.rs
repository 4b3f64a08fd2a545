//! What a person should look at. `survey` finds what is wrong, `evaluator` (pure) says when that becomes an
//! alarm and when it is over, and `keeper` writes both down with the events that they owe; so it does with
//! another health, which `healths` (pure) finds. `model` has the words.

pub(crate) mod evaluator;
mod healths;
pub(crate) mod keeper;
pub(crate) mod model;
mod survey;
