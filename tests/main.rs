//! End to end: the program as a user runs it, on stores that the testkit makes. Nothing here looks inside mlxman.

mod contract;
mod damage;
mod dedupe;
mod find;
mod guarding;
mod lab;
mod needed;
mod nothing_lost;
mod original_manifests;
mod preview;
mod registry;
mod verify;
