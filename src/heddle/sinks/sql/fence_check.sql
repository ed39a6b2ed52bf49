-- Held until the batch commits: a later owner's bump waits for it, and after that bump this answer differs.
select partition, epoch
from {epochs}
where sink = %(sink)s and topic = %(topic)s and partition = any(%(partitions)s::int4[])
order by partition
for share
