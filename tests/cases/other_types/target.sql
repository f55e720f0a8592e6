CREATE TABLE t (id bigint PRIMARY KEY, a text, b text, e text, n float8, f float8, j jsonb, c text, ip text, ts text);
CREATE TABLE k (id text PRIMARY KEY, v varchar(10));
