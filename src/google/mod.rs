//! How to talk to Google's APIs over HTTP. Knows no business words, and no other module of ours.
