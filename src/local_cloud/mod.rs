//! A small Google Cloud on loopback. Imports nothing of ours, so that a mistake in our clients cannot be mirrored here.
