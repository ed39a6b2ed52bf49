-- Rows of entities, by the entity's place among the keys that are asked for; the first rows only where there are many.
select place, row_count, {staged_columns}
from (
    select
        wanted.place,
        count(*) over (partition by wanted.place) as row_count,
        row_number() over (partition by wanted.place order by {row_order}) as row_place,
        {present_columns}
    from unnest({keys}) with ordinality as wanted ({wanted_key}, place)
    inner join {table} as present on {present_is_wanted}
) as numbered
where row_place <= %(most)s
order by place, row_place
