//! One binary of tests through the front door.

mod sandbox;
