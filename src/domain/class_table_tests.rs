//! Tests of [`super::ClassTable`].
