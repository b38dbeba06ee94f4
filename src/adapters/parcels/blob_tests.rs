//! Tests of the geometry blob.
