"""Shim of MaixPy's machine: the REPL UART and a watchdog that resets the board."""

import hw


class UART:
    """The REPL UART: a receive buffer that drops what does not fit, read without waiting for more."""

    def init(
        self,
        baudrate=115200,
        bits=8,
        parity=None,
        stop=None,
        timeout=1000,
        timeout_char=10,
        read_buf_len=2048,
        ide=False,
    ):
        if not 0 <= baudrate <= 0x500000:
            raise ValueError("[MAIXPY]UART:invalid baudrate")
        hw.init(baudrate, read_buf_len)

    def any(self):
        return hw.any()

    def read(self, n=-1):
        have = hw.any()
        if not have:
            hw.sleep_ms(10)
            have = hw.any()
            if not have:
                return None
        return hw.read(have if n < 0 else min(n, have))

    def write(self, data):
        hw.write(data)
        return len(data)

    @staticmethod
    def repl_uart():
        return _uart


_uart = UART()


class WDT:
    def __init__(self, id=0, timeout=5000, callback=None, context=None):
        hw.call(b"D" + str(timeout).encode())

    def feed(self):
        pass

    def stop(self):
        hw.call(b"D0")


def reset():
    hw.call(b"X")
