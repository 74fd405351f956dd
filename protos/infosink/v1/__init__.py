"""The wire contract and the models' self-description, generated from the .proto files here."""
