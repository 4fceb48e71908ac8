//! Tests that need a kernel, network namespaces or real servers.
