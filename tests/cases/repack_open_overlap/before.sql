-- @old writer
BEGIN;
INSERT INTO other VALUES (1);
-- @young writer
BEGIN;
INSERT INTO t VALUES (2000, 2);
