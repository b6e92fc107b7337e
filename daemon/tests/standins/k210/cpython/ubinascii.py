from binascii import a2b_base64, crc32  # noqa: F401 this is what the module is for
