insert into {bounds} as present (sink, pruned_before)
values (%(sink)s, %(before)s)
on conflict (sink) do update
set pruned_before = greatest(present.pruned_before, excluded.pruned_before)
