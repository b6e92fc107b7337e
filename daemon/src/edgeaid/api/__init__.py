"""Protocol adapters: they turn clients' messages into requests to the data plane. They hold no state of models."""
