CREATE TABLE no_index (id int PRIMARY KEY, code text NOT NULL);
