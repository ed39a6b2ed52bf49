create table {inbox} (
    ce_id text collate "C" not null,
    ce_source text collate "C" not null,
    sink text collate "C" not null,
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    revision text not null,
    body_hash bytea not null,
    applied_at timestamp with time zone not null default clock_timestamp(),
    primary key (ce_id, ce_source, sink)
)
