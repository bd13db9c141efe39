//! End to end: the program as a user runs it, on stores that the testkit makes. Nothing here looks inside mlxman.

mod applying;
mod clean_hf;
mod contract;
mod damage;
mod dedupe;
mod disk;
mod doctoring;
mod failures;
mod find;
mod guarding;
mod integrity;
mod killed;
mod lab;
mod needed;
mod nothing_lost;
mod original_manifests;
mod peers;
mod policies;
mod preview;
mod registry;
mod trash_order;
mod uses;
mod verify;
