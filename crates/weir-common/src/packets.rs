//! Layouts of the `packets` object: one record per packet in a ring buffer.
