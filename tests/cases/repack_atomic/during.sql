-- @one writer
SELECT put(i, 2) FROM generate_series(491, 510) i;
