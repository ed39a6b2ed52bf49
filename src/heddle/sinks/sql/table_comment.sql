select obj_description(table_.oid, 'pg_class')
from pg_catalog.pg_class as table_
inner join pg_catalog.pg_namespace as schema_ on schema_.oid = table_.relnamespace
where schema_.nspname = %(schema)s and table_.relname = %(table)s
