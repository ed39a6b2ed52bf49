create table {bounds} (
    sink text collate "C" primary key,
    pruned_before timestamp with time zone not null
)
