//! Builds the engine's C++ shim.
fn main() {}
