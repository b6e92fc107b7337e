from struct import calcsize, pack, unpack, unpack_from  # noqa: F401 this is what the module is for
