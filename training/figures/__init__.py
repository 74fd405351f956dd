"""The figures of the paper, reproduced."""
