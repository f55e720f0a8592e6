//! What every integration test needs. Not every test binary uses all of it.
#![allow(dead_code)]

pub(crate) mod cluster;
pub(crate) mod db;
pub(crate) mod owner;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod script;
pub(crate) mod stream;
pub(crate) mod wait;

/// How much work a scaled test does: `make test` is small, `make soak` (`REPCLOUD_TEST_SIZE=full`) is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Full,
}

/// The size this run was asked for. A word that is neither is a mistake that must not pass as a small run.
pub(crate) fn size() -> Size {
    match std::env::var("REPCLOUD_TEST_SIZE").as_deref() {
        Err(_) | Ok("" | "small") => Size::Small,
        Ok("full") => Size::Full,
        Ok(other) => panic!("REPCLOUD_TEST_SIZE is {other:?}, it can be small or full"),
    }
}

/// One of two numbers, by size: `scaled(10, 50)`.
pub(crate) fn scaled<T>(small: T, full: T) -> T {
    match size() {
        Size::Small => small,
        Size::Full => full,
    }
}
