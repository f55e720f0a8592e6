//! Whatever is killed, stopped, frozen or full: no row lost, doubled or reordered, and nothing half done is seen.

mod full;
mod idle;
pub(crate) mod kill;
mod kill_copy;
mod large;
pub(crate) mod load;
mod restart;
mod signals;
mod stall;
mod sums;
mod zombie;
