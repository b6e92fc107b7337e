"""`edgeai model deploy`: from a training framework's file to a bundle, step by step."""
