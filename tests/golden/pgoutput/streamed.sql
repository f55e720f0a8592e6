-- Transactions too large for logical_decoding_work_mem, so that they are streamed before they end.
begin;
insert into streamed select generate_series(1, 420);
savepoint a;
insert into streamed select generate_series(1001, 1420);
rollback to a;
select pg_logical_emit_message(true, 'repcloud', 'in a stream') \g /dev/null
insert into typed values (2, 'ok', 1, null, null);
update typed set id = 3 where id = 2;
delete from typed where id = 3;
truncate typed;
commit;
begin;
insert into streamed select generate_series(2001, 2420);
insert into streamed select generate_series(2421, 2840);
rollback;
insert into no_key values (9);
