CREATE TABLE there (id int PRIMARY KEY, v text);
