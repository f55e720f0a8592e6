//! The `repcloud` binary: arguments in, exit code out.

fn main() {}
