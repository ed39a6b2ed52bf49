select
    column_.attname,
    format_type(column_.atttypid, column_.atttypmod),
    column_.attnotnull and not column_.atthasdef and column_.attidentity = '' as needs_value
from pg_catalog.pg_attribute as column_
inner join pg_catalog.pg_class as table_ on table_.oid = column_.attrelid
inner join pg_catalog.pg_namespace as schema_ on schema_.oid = table_.relnamespace
where schema_.nspname = %(schema)s and table_.relname = %(table)s
    and column_.attnum > 0 and not column_.attisdropped
order by column_.attnum
