"""What is seen from outside: metrics, the log, spans."""
