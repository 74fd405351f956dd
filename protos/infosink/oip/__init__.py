"""The Open Inference Protocol, generated from the .proto file here; apart from what else uses its package name."""
