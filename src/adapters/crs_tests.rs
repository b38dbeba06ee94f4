//! Tests of [`super::Transform`].
