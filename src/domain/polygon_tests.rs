//! Tests of [`super::Polygon`].
