//! The daemon: configuration, pipeline, enrichment, store, sinks and API.
