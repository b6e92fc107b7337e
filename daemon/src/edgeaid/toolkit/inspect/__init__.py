"""What a model file holds, without loading a runtime: as data, text, JSON or HTML."""
