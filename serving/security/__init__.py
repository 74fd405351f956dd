"""Who may call, and who may listen: TLS and tokens."""
