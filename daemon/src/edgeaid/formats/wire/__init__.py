"""Encodings that the formats share: protobuf, flatbuffers, flexbuffers, zip and tar directories."""
