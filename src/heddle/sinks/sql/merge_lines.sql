-- Makes a batch of events that are several rows each; the answer is that of merge_row.sql.
-- An entity's version lives in a table of its own, because an entity may have no row at all. Rows of its earlier
-- version are overwritten by line number, and those beyond the last line deleted.
-- For `is true`, `count` and negative indexes see merge_row.sql. Only an event's first staged row has a ce_id.
with fresh as (
    insert into {inbox} (ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash)
    select ce_id, ce_source, %(sink)s, %(topic)s, partition, "offset", revision, body_hash
    from {stage}
    where {meant} and ce_id is not null
    order by ce_id, ce_source
    on conflict do nothing
    returning partition, "offset"
),

candidate as (
    select distinct on ({key_order}) {key}, {version}, batch_index, line_count
    from {stage}
    where {meant} and ce_id is not null
        and (
            (select count(*) from fresh) = %(count)s::bigint
            or ((partition, "offset") in (select partition, "offset" from fresh)) is true
        )
    order by {key_order}, {version} desc, batch_index desc
),

newest as (
    insert into {versions} as present ({key_columns}, {version_column})
    select {key}, {version}
    from candidate
    order by {key_order}
    on conflict ({key_columns}) do update set {version_column} = excluded.{version_column}
    where present.{version_column} < excluded.{version_column}
        or (present.{version_column} = excluded.{version_column} and {equal_follows})
    returning {key_columns}
),

chosen as (
    select {key}, batch_index, line_count
    from candidate
    where (({key}) in (select {key_columns} from newest)) is true
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
    where {meant}
        and line_no > 0
        and (batch_index in (select batch_index from chosen)) is true
    order by {key_order}, line_no
    on conflict ({key_columns}, {line_no}) do update set {assignments}
)

select batch_index, ((partition, "offset") in (select partition, "offset" from fresh)) is not true as seen
from {stage}
where {meant} and ce_id is not null
    and (select count(*) from chosen) <> %(count)s::bigint
    and (batch_index in (select batch_index from chosen)) is not true
