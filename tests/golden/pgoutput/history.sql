-- Every kind of change, for protocol 1. The test knows these lines: change both together.
insert into plain values
  (1, 1.50, '2024-02-29 12:00:00+00', 'grün', '{"a": [1, null]}', '\x00ff'),
  (2, 'NaN', 'infinity', '', 'null', '');
insert into plain (id) values (3);
update plain set s = 'new' where id = 1;
update plain set id = 30 where id = 3;
delete from plain where id = 2;
insert into "Odd ""Schema"""."Täble ""1""" values (9007199254740993, 'x', 'ä');
insert into typed values (1, 'it''s fine', 12.3, row(1, 'a b'), '{1,null,3}');
begin;
insert into toasted select 1, string_agg(md5(i::text), ''), 'a' from generate_series(1, 70) i;
update toasted set small = 'b' where id = 1;
update toasted set id = 2 where id = 1;
commit;
begin;
insert into full_identity select 1, 'x', string_agg(md5(i::text), '') from generate_series(1, 70) i;
update full_identity set b = 'y';
delete from full_identity;
commit;
begin;
insert into by_index values (1, 'k', 'c');
update by_index set c = 'd';
update by_index set b = 'l';
delete from by_index;
commit;
insert into no_key values (1);
insert into parent values (1);
insert into child values (1, 1);
truncate parent, child restart identity;
truncate parent cascade;
insert into no_columns default values;
insert into reshaped values (1, 's');
alter table reshaped add column added int default 7;
insert into reshaped values (2, 't');
begin;
select pg_logical_emit_message(true, 'repcloud', 'nonce 1') \g /dev/null
savepoint a;
insert into no_key values (2);
rollback to a;
insert into no_key values (3);
commit;
select pg_logical_emit_message(false, 'other', 'at once') \g /dev/null
begin;
select pg_replication_origin_create('elsewhere') \g /dev/null
commit;
select pg_replication_origin_session_setup('elsewhere') \g /dev/null
begin;
select pg_replication_origin_xact_setup('1/2345', '2024-01-01 00:00:00+00') \g /dev/null
insert into no_key values (4);
commit;
select pg_replication_origin_session_reset() \g /dev/null
select pg_replication_origin_drop('elsewhere') \g /dev/null
