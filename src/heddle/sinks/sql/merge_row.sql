-- Makes a batch of events that are one row each, and answers for those that are not plainly applied:
-- seen = the inbox knows the identity already, not seen = a newer version of the entity is applied, perhaps by this
-- very batch: of several versions only the newest is written, of equal ones the last.
-- A replayed event comes late and is staged under a negative index, -1 for the batch's first: of equal versions it
-- gives way to a live one, to an earlier replayed one, and to the row that is there.
-- `(… in (…)) is true` keeps the look-up a hash: as a join, the planner took nested loops over the whole batch.
-- `count` is how many events are meant: where all are fresh, or all were written, nothing is looked up at all. For the
-- same reason the candidates are not kept: they are read a second time only to say which event was not written.
with fresh as (
    insert into {inbox} (ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash)
    select ce_id, ce_source, %(sink)s, %(topic)s, partition, "offset", revision, body_hash
    from {stage}
    where {meant}
    order by ce_id, ce_source
    on conflict do nothing
    returning partition, "offset"
),

candidate as not materialized (
    select distinct on ({key_order}) *
    from {stage}
    where {meant}
        and (
            (select count(*) from fresh) = %(count)s::bigint
            or ((partition, "offset") in (select partition, "offset" from fresh)) is true
        )
    order by {key_order}, {version} desc, batch_index desc
),

written as (
    insert into {table} as present ({columns})
    select {staged_columns}
    from candidate
    where {is_not_gone}
    order by {key_order}
    on conflict ({key_columns}) do update set {assignments}
    where (
        present.{version_column} < excluded.{version_column}
        or (present.{version_column} = excluded.{version_column} and {equal_follows})
    ) is not false
    returning {key_columns}
)

select batch_index, ((partition, "offset") in (select partition, "offset" from fresh)) is not true as seen
from {stage}
where {meant}
    and (select count(*) from written) <> %(count)s::bigint
    and (
        batch_index in (
            select batch_index
            from candidate
            where (({key}) in (select {key_columns} from written)) is true
        )
    ) is not true
