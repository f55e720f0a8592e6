-- Version 6: into which relation of the target the rows of a table went. Another one may come to bear its name. `state_oid` is this
-- table itself: after a dump was restored all relations have other numbers, and what is written here says nothing.
ALTER TABLE repcloud.table_state ADD COLUMN target_oid oid, ADD COLUMN state_oid oid;

INSERT INTO repcloud.version VALUES (6);
