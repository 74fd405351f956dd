"""What is served: model files, found, checked, loaded, and loaded again."""
