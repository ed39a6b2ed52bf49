-- Column names of each unique index that `on conflict` can use.
select array_agg(column_.attname::text)
from pg_catalog.pg_index as index_
inner join pg_catalog.pg_class as table_ on table_.oid = index_.indrelid
inner join pg_catalog.pg_namespace as schema_ on schema_.oid = table_.relnamespace
cross join unnest(index_.indkey) with ordinality as part (attnum, place)
inner join pg_catalog.pg_attribute as column_
    on column_.attrelid = table_.oid and column_.attnum = part.attnum
where schema_.nspname = %(schema)s and table_.relname = %(table)s
    and index_.indisunique and index_.indimmediate and index_.indisvalid
    and index_.indpred is null and index_.indexprs is null
    and part.place <= index_.indnkeyatts
group by index_.indexrelid
