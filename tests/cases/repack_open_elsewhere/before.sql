-- @idle writer
BEGIN;
INSERT INTO other VALUES (1);
