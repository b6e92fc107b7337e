"""Bundles: a model directory as one archive, with digests, signature and golden vectors."""
