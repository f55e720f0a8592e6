CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent);
CREATE TABLE watched (id int PRIMARY KEY, v text);
