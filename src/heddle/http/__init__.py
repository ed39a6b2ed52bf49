"""What every component that speaks HTTP as a client shares: credentials (auth.py, oauth.py, assertion.py; by
certificate: tls.py), where it may connect to (guard.py), how fast (rate.py), and what is announced to it
(notices.py)."""
