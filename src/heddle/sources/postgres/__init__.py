"""PostgreSQL's changes as contract events: logical replication through `pgoutput`."""
