"""Serves ONNX model files over gRPC: sampling by code, and inference of the codes."""
