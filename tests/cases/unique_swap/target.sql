-- The target checks at once what the source checks at the end.
CREATE TABLE strict (id int PRIMARY KEY, k int UNIQUE, note text);
