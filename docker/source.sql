-- What the source of docker/compose.yaml holds at first.
create table orders (
    id bigint generated always as identity primary key,
    placed timestamptz not null default now(),
    total numeric(10, 2) not null
);
insert into orders (total) select (i * 7 % 1000) / 10.0 from generate_series(1, 1000) i;
