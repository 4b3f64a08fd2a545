//! AIWM's REST.
