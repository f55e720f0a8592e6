CREATE TABLE orders (id int PRIMARY KEY, region text, total numeric(10,2), secret text);
INSERT INTO orders SELECT i, (ARRAY['eu', 'us'])[i % 2 + 1], i * 1.5, 'secret' FROM generate_series(1, 20) i;
