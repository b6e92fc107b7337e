from io import BytesIO  # noqa: F401 this is what the module is for
