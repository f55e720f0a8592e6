-- Version 5: which relation of the source the rows of a target table are of. Another one may come to bear its name.
ALTER TABLE repcloud.table_state ADD COLUMN source_oid oid;

INSERT INTO repcloud.version VALUES (5);
