-- Takes away the rows of entities that are gone, once per tombstone; answers with the identities that are new.
-- Of an entity whose row is gone the version stays known, so that an older event that comes late does not bring it back.
with tombstone as (
    select *
    from unnest(
        %(ids)s::text[], %(sources)s::text[], %(partitions)s::integer[], %(offsets)s::bigint[], %(revisions)s::text[],
        %(body_hashes)s::bytea[], {keys}
    ) as given (ce_id, ce_source, partition, "offset", revision, body_hash, {wanted_key})
),

fresh as (
    insert into {inbox} (ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash)
    select ce_id, ce_source, %(sink)s, %(topic)s, partition, "offset", revision, body_hash
    from tombstone
    order by ce_id, ce_source
    on conflict do nothing
    returning ce_id, ce_source
),

gone as (
    delete from {table} as present
    using (select * from tombstone where (ce_id, ce_source) in (select ce_id, ce_source from fresh)) as wanted
    where {present_is_wanted}
    returning {present_key}, present.{version_column}
),

remembered as (
    insert into {versions} as known ({key_columns}, {version_column})
    select {key_columns}, max({version_column})
    from gone
    group by {key_columns}
    having max({version_column}) is not null
    order by {key_columns}
    on conflict ({key_columns}) do update set {version_column} = excluded.{version_column}
    where known.{version_column} < excluded.{version_column}
)

select ce_id, ce_source from fresh
