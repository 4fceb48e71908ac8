//! The HTTP contract between the agent and its clients: types, paths and a client.
