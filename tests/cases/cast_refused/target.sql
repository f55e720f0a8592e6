CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN mine AS mood;
CREATE TABLE t (id int PRIMARY KEY, m mood, d mine);
CREATE FUNCTION always_bad(text) RETURNS mood LANGUAGE sql AS $$ SELECT 'bad'::mood $$;
CREATE CAST (text AS mood) WITH FUNCTION always_bad(text);
