-- Makes a batch of events that are one row each, and answers for those that are not plainly applied:
-- seen = the inbox knows the identity already, not seen = a newer version of the entity is applied.
-- A version that the batch itself replaces counts as applied, though only the last one is written.
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
    select
        staged.*,
        max({version}) over (
            entity order by batch_index rows between unbounded preceding and 1 preceding
        ) as version_before,
        row_number() over (entity order by {version} desc, batch_index desc) as place
    from {stage} as staged
    where ((partition, "offset") in (select partition, "offset" from fresh)) is true
    window entity as (partition by {key})
),

written as (
    insert into {table} as present ({columns})
    select {staged_columns}
    from candidate
    where place = 1
    order by {key}
    on conflict ({key_columns}) do update set {assignments}
    where (present.{version_column} <= excluded.{version_column}) is not false
)

select staged.batch_index, candidate.place is null as seen
from {stage} as staged
left join candidate using (batch_index)
where staged.batch_index = any(%(indexes)s::int4[])
    and (
        candidate.place is null
        or candidate.{version} < greatest(
            candidate.version_before,
            (select present.{version_column} from {table} as present where {present_is_candidate})
        )
    )
