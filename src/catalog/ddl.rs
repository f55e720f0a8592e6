//! Target tables as DDL; pure.
