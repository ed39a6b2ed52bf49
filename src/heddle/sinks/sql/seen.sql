-- What the inbox holds of events that are not new.
select staged.batch_index, inbox.topic, inbox.partition, inbox."offset", inbox.revision, inbox.body_hash
from {stage} as staged
cross join lateral (
    select *
    from {inbox} as known
    where (known.ce_id, known.ce_source, known.sink) = (staged.ce_id, staged.ce_source, %(sink)s)
    limit 1
) as inbox
where staged.ce_id is not null and staged.batch_index = any(%(indexes)s::int4[])
