//! Floor 1: the only room that opens sockets.
