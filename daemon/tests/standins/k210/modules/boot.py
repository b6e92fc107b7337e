"""What a board says when it starts, and what it runs then."""

import files
import hw


def text():
    hw.write(
        b"\r\n[MAIXPY] Pll0:freq:806000000\r\n[MAIXPY] Pll1:freq:398666666\r\n[MAIXPY] cpu:freq:403000000\r\n"
        b"[MAIXPY] Flash:0xc8:0x17\r\n[MaixPy] gc heap=0x8036b4b0-0x803eb4b0(524288)\r\n[MaixPy] init end\r\n"
    )
    hw.sleep_ms(200)


def main():
    """The user's program, or None."""
    if "main.py" in files.listdir("/flash"):
        with files.open("/flash/main.py") as f:
            return f.read()
    return None
