"""Shim of MaixPy's Maix: the free system heap."""


class utils:
    @staticmethod
    def heap_free():
        return 3 * 1024 * 1024 + 512 * 1024

    @staticmethod
    def gc_heap_size():
        return 512 * 1024
