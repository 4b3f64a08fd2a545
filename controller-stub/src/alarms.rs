//! What a person should look at. `survey` finds what is wrong, `evaluator` (pure) says when that becomes an
//! alarm and when it is over, and `keeper` writes both down with the events that they owe. `model` has the
//! words.

pub(crate) mod evaluator;
pub(crate) mod keeper;
pub(crate) mod model;
mod survey;
