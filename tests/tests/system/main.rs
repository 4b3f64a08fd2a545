//! Whole-system tests. What boots a machine stands under `lab::`, so that one filter leaves it out.

mod architecture;
mod circles;
mod demo;
mod documented;
mod documents;
mod lab;
mod releases;
mod rotation;
mod storm;
