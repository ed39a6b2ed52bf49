insert into {epochs} as mine (sink, topic, partition, epoch)
select %(sink)s, %(topic)s, wanted.partition, 1
from unnest(%(partitions)s::int4[]) as wanted (partition)
order by wanted.partition
on conflict (sink, topic, partition) do update set epoch = mine.epoch + 1
returning partition, epoch
