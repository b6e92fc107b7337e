"""Models on disk: manifests, the repository, bundles, the catalogue, and the gate before a runtime sees a file."""
