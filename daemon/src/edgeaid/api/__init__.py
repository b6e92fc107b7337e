"""Protocol adapters: what clients speak, turned into requests to the data plane. They hold no state of models."""
