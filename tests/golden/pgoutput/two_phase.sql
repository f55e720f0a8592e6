-- Prepared transactions, small and streamed.
begin;
insert into prepared values (1, 'one');
prepare transaction 'first ''gid''';
commit prepared 'first ''gid''';
begin;
insert into prepared values (2, 'two');
prepare transaction 'second';
rollback prepared 'second';
begin;
insert into streamed select generate_series(5001, 5420);
savepoint a;
insert into streamed select generate_series(6001, 6420);
rollback to a;
insert into prepared values (3, 'three');
prepare transaction 'third';
commit prepared 'third';
insert into prepared values (4, 'four');
