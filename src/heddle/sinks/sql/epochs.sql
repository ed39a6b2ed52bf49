create table {epochs} (
    sink text collate "C" not null,
    topic text collate "C" not null,
    partition integer not null,
    epoch bigint not null,
    primary key (sink, topic, partition)
)
