"""What every call has: a way in, a deadline, a record, a status; and the standard services health and reflection."""
