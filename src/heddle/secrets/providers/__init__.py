"""One file per provider: its options, and how it is asked."""
