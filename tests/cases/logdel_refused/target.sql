CREATE TABLE t (id int PRIMARY KEY, k int CONSTRAINT only_one UNIQUE, repcloud_source_deleted timestamptz);
CREATE TABLE bare (id int PRIMARY KEY);
CREATE TABLE typed (id int PRIMARY KEY, repcloud_source_deleted timestamp);
