//! Token ids in, token ids out, for many sequences.
