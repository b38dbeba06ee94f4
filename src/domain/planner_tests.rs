//! Tests of [`super::Planner`].
