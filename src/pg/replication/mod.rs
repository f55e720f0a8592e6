//! A replication session (`replication=database`) and its stream: our own frontend, because tokio-postgres has no
//! replication mode. Facts: `proto-notes/replication-protocol.md`.

mod auth;
mod cancel;
mod client;
mod command;
mod stream;
mod timeline;
mod wire;

pub use cancel::ReplicationCanceller;
pub use client::ReplicationClient;
pub use command::{CreatedSlot, SlotRequest, Snapshot, SystemIdentity};
pub use stream::{Frame, Positions, ReplicationStream};
pub use timeline::{TimelineHistory, TimelineSwitch};
