//! dsm-registry
