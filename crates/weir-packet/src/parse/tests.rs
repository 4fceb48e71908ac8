//! Frames and what they are.
