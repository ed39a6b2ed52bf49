-- What the inbox holds of some identities.
select known.ce_id, known.ce_source, known.topic, known.partition, known."offset"
from {inbox} as known
join unnest(%(ids)s::text[], %(sources)s::text[]) as given (ce_id, ce_source)
    on (known.ce_id, known.ce_source) = (given.ce_id, given.ce_source)
where known.sink = %(sink)s
