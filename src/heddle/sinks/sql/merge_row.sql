-- Makes a batch of events that are one row each, and answers for those that are not plainly applied:
-- seen = the inbox knows the identity already, not seen = a newer version of the entity is applied, perhaps by this
-- very batch: of several versions only the newest is written, of equal ones the last.
-- A replayed event comes late and is staged under a negative index, -1 for the batch's first: of equal versions it
-- gives way to a live one, to an earlier replayed one, and to the row that is there.
-- `(… in (…)) is true` keeps the look-up a hash: as a join, the planner took nested loops over the whole batch.
with fresh as (
    insert into {inbox} (ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash)
    select ce_id, ce_source, %(sink)s, %(topic)s, partition, "offset", revision, body_hash
    from {stage}
    where batch_index = any(%(indexes)s::int4[])
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

written as (
    insert into {table} as present ({columns})
    select {staged_columns}
    from candidate
    where place = 1
    order by {key}
    on conflict ({key_columns}) do update set {assignments}
    where (
        present.{version_column} < excluded.{version_column}
        or (present.{version_column} = excluded.{version_column} and {equal_follows})
    ) is not false
    returning {key_columns}
)

select staged.batch_index, candidate.place is null as seen
from {stage} as staged
left join candidate using (batch_index)
where staged.batch_index = any(%(indexes)s::int4[])
    and (candidate.place = 1 and ({candidate_key}) in (select {key_columns} from written)) is not true
