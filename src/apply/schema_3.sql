-- Version 3: what a person asks of the process that runs a stream; empty when nothing.
ALTER TABLE repcloud.durability ADD COLUMN request text CHECK (request IN ('pause', 'stop'));

INSERT INTO repcloud.version VALUES (3);
