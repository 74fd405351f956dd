"""onnxruntime: sessions, and the batches that many callers share."""
