"""Export of a training run to the two self-describing ONNX files that the server loads."""
