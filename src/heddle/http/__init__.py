"""What every component that speaks HTTP as a client shares: credentials (auth.py), and where it may connect to
(guard.py)."""
