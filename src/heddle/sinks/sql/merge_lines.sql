-- Makes a batch of events that are several rows each; the answer is that of merge_row.sql.
-- An entity's version lives in a table of its own, because an entity may have no row at all. Rows of its earlier
-- version are overwritten by line number, and those beyond the last line deleted.
-- For `is true` and for negative indexes see merge_row.sql.
with fresh as (
    insert into {inbox} (ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash)
    select ce_id, ce_source, %(sink)s, %(topic)s, partition, "offset", revision, body_hash
    from {stage}
    where ce_id is not null and batch_index = any(%(indexes)s::int4[])
    order by ce_id, ce_source
    on conflict do nothing
    returning partition, "offset"
),

candidate as (
    select *, row_number() over (partition by {key} order by {version} desc, batch_index desc) as place
    from {stage}
    where batch_index = any(%(indexes)s::int4[])
        and ((partition, "offset") in (select partition, "offset" from fresh)) is true
),

newest as (
    insert into {versions} as present ({key_columns}, {version_column})
    select {key}, {version}
    from candidate
    where place = 1
    order by {key}
    on conflict ({key_columns}) do update set {version_column} = excluded.{version_column}
    where present.{version_column} < excluded.{version_column}
        or (present.{version_column} = excluded.{version_column} and {equal_follows})
    returning {key_columns}
),

chosen as (
    select *
    from candidate
    where place = 1 and (({key}) in (select {key_columns} from newest)) is true
),

shortened as (
    delete from {table} as present
    using chosen as candidate
    where {present_is_candidate} and present.{line_no} > candidate.line_count
),

written as (
    insert into {table} ({columns})
    select {staged_columns}
    from {stage} as staged
    where batch_index = any(%(indexes)s::int4[])
        and line_no > 0
        and (batch_index in (select batch_index from chosen)) is true
    order by {key}, staged.line_no
    on conflict ({key_columns}, {line_no}) do update set {assignments}
)

select staged.batch_index, candidate.place is null as seen
from {stage} as staged
left join candidate using (batch_index)
where staged.ce_id is not null and staged.batch_index = any(%(indexes)s::int4[])
    and (staged.batch_index in (select batch_index from chosen)) is not true
