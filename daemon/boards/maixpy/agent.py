"""Agent of edgeaid on a K210 board under MaixPy: wire protocol version 1 (docs/k210.md).

The host sends this file through the raw REPL, or it lies on the board as /flash/main.py. It owns the REPL UART until
BYE or until nobody has sent a valid frame for the idle time; then it gives UART and Ctrl-C back.
MaixPy is MicroPython 1.11: no f-strings, no walrus, nothing newer. The tests compile it with that release.
"""

import gc
import sys

import machine
import micropython
import ubinascii
import ustruct
import utime
from micropython import const

PROTO = const(1)
AGENT = "1.0"
MAX_PAYLOAD = const(1024)
MAX_CHUNK = const(1041)  # COBS of 8 + 1024 + 4 bytes
BAUD = const(115200)
SLOTS = const(5)  # kpu.load refuses a sixth model

HELLO = const(1)
LOAD = const(2)
SETOUT = const(3)
INPUT = const(4)
DATA = const(5)
RUN = const(6)
OUT = const(7)
ERR = const(8)
PING = const(9)
SETBAUD = const(10)
ACK = const(11)
NAK = const(12)
BYE = const(13)
UNLOAD = const(14)
PUT = const(15)
STAT = const(16)
STREAM = const(17)
REMOVE = const(18)

E_REQUEST = const(-1)
E_TYPE = const(-2)
E_TRANSFER = const(-3)
E_SLOT = const(-4)
E_CRC = const(-5)
E_MEMORY = const(-6)
E_FILE = const(-7)
E_CAMERA = const(-8)
E_OTHER = const(-10)


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code
        self.text = text


def stuff(data):
    """COBS: no zero in the result."""
    out = bytearray()
    for part in bytes(data).split(b"\0"):
        n = len(part)
        i = 0
        while n - i >= 254:
            out.append(255)
            out.extend(part[i : i + 254])
            i += 254
        out.append(n - i + 1)
        out.extend(part[i:])
    return out


def unstuff(buf, n):
    """Undo COBS of buf[:n] in place; the new length, or -1 when it is not COBS."""
    i = o = 0
    while i < n:
        c = buf[i]
        i += 1
        k = c - 1
        if k < 0 or i + k > n:
            return -1
        if k:
            buf[o : o + k] = buf[i : i + k]
            o += k
            i += k
        if c != 255 and i < n:
            buf[o] = 0
            o += 1
    return o


def frame(kind, flags, seq, index, payload=b""):
    """The bytes of a frame, both delimiters included."""
    body = ustruct.pack("<BBHHH", kind, flags, seq, index, len(payload)) + payload
    body += ustruct.pack("<I", ubinascii.crc32(body) & 0xFFFFFFFF)
    return b"\0" + bytes(stuff(body)) + b"\0"


class Reader:
    """Finds frames in whatever comes; damaged ones and text are dropped and counted."""

    def __init__(self):
        self.buf = bytearray(MAX_CHUNK)
        self.fill = 0
        self.bad = 0

    def feed(self, data, sink):
        start = 0
        while True:
            end = data.find(b"\0", start)
            part = data[start:] if end < 0 else data[start:end]
            n = len(part)
            if n and self.fill >= 0:
                if self.fill + n > MAX_CHUNK:
                    self.fill = -1
                else:
                    self.buf[self.fill : self.fill + n] = part
                    self.fill += n
            if end < 0:
                return
            n = self.fill
            self.fill = 0
            if n:
                self.chunk(n, sink)
            start = end + 1

    def chunk(self, n, sink):
        buf = self.buf
        n = unstuff(buf, n) if n > 0 else -1
        if n >= 12:
            kind, flags, seq, index, size = ustruct.unpack_from("<BBHHH", buf, 0)
            if size == n - 12:
                crc = ustruct.unpack_from("<I", buf, n - 4)[0]
                if ubinascii.crc32(memoryview(buf)[: n - 4]) & 0xFFFFFFFF == crc:
                    sink(kind, flags, seq, index, bytes(memoryview(buf)[8 : n - 4]))
                    return
        self.bad += 1


class Transfer:
    """One object on its way here, in pieces that may come in any order, size (a power of two from 16) and number."""

    def __init__(self, seq, size, crc, target, finish):
        self.seq = seq
        self.size = size
        self.crc = crc
        self.target = target
        self.finish = finish
        self.marks = bytearray((size + 15) // 16)
        self.base = 0  # units of 16 bytes that are here without a hole
        self.answer = None

    def put(self, flags, index, body):
        shift = (flags >> 4) + 4
        at = index << shift
        n = len(body)
        if at + n > self.size or (n != 1 << shift and at + n != self.size):
            raise Refused(E_REQUEST, "piece %d of %d bytes is outside the transfer" % (index, n))
        self.target[at : at + n] = body
        marks = self.marks
        for unit in range(at >> 4, (at + n + 15) >> 4):
            marks[unit] = 1
        base = self.base
        end = len(marks)
        while base < end and marks[base]:
            base += 1
        self.base = base
        return base == end


class Agent:
    def __init__(self, uart):
        self.uart = uart
        self.baud = BAUD
        self.rx = 2048
        self.reader = Reader()
        self.last = -1  # type and seq of the newest request, to answer a repetition without running it again
        self.reply = None
        self.transfer = None
        self.models = {}
        self.planes = {}
        self.inputs = {}
        self.result = None  # (seq, bytes)
        self.asked = None
        self.given = []
        self.stream = None
        self.trial = None
        self.idle = 10000
        self.running = True
        self.heard = utime.ticks_ms()
        self.calls = {
            HELLO: self.hello, LOAD: self.load, SETOUT: self.setout, INPUT: self.input, RUN: self.run,
            SETBAUD: self.setbaud, BYE: self.bye, UNLOAD: self.unload, PUT: self.put, STAT: self.stat,
            STREAM: self.streaming, REMOVE: self.remove,
        }  # fmt: skip

    def send(self, kind, flags, seq, index, payload=b""):
        data = frame(kind, flags, seq, index, payload)
        self.uart.write(data)
        return data

    def loop(self):
        self.send(HELLO, 0, 0xFFFF, 0, self.about())
        while self.running:
            n = self.uart.any()
            if n:
                data = self.uart.read(n)
                if data:
                    self.reader.feed(data, self.handle)
                continue
            now = utime.ticks_ms()
            if self.trial and utime.ticks_diff(now, self.trial[1]) > 0:
                self.rate(self.trial[0], self.rx)
                self.trial = None
            if utime.ticks_diff(now, self.heard) > self.idle:
                break
            if self.stream and utime.ticks_diff(now, self.stream[0]) >= 0:
                self.shoot()
            else:
                utime.sleep_ms(1)

    def handle(self, kind, flags, seq, index, body):
        self.heard = utime.ticks_ms()
        self.trial = None
        if kind == PING:
            self.send(PING, flags, seq, index, body)
            return
        if kind == DATA:
            self.data(flags, seq, index, body)
            return
        if kind == NAK:
            key = (seq, flags)
            if key != self.asked:
                self.asked = key
                self.given = []
            if index not in self.given:  # on a bad line the host sends the same question several times at once
                self.given.append(index)
                self.pull(seq, index, body)
            return
        if kind == ACK:
            return
        key = (kind << 16) | seq
        if key == self.last:
            if self.reply:
                self.uart.write(self.reply)
            return
        self.last = key
        self.reply = None
        try:
            call = self.calls.get(kind)
            if call is None:
                raise Refused(E_TYPE, "type 0x%02x is unknown to agent %s" % (kind, AGENT))
            payload = call(seq, index, body)
            if payload is not None:
                self.reply = self.send(HELLO if kind == HELLO else ACK, 0, seq, index, payload)
        except Exception as e:
            self.reply = self.fail(seq, index, e)
        if kind == SETBAUD:
            self.switch(body)

    def fail(self, seq, index, e):
        text = str(e)
        code = E_OTHER
        if isinstance(e, Refused):
            code = e.code
            text = e.text
        elif isinstance(e, MemoryError):
            gc.collect()
            code = E_MEMORY
        else:
            at = text.find("20")  # MaixPy puts its own number, 2001 to 2015, into the text
            if at >= 0 and text[at : at + 4].isdigit() and 2001 <= int(text[at : at + 4]) <= 2015:
                code = int(text[at : at + 4])
            text = "%s: %s" % (type(e).__name__, text)
        return self.send(ERR, 0, seq, index, ustruct.pack("<h", code) + text.encode()[:200])

    # session

    def about(self):
        gc.collect()
        free = 0
        try:
            from Maix import utils

            free = utils.heap_free()
        except (ImportError, AttributeError):
            pass
        v4 = 255
        try:
            import KPU

            v4 = int(hasattr(KPU, "set_outputs"))
        except ImportError:
            pass
        return ustruct.pack("<BBIIHI", PROTO, v4, free, gc.mem_free(), self.rx, self.baud)

    def text(self):
        firmware = sys.version
        try:
            import uos

            firmware = uos.uname()[3]
        except (AttributeError, ImportError, IndexError):
            pass
        facts = (AGENT, firmware.replace(";", ",")[:60], sys.platform, self.reader.bad)
        return ("agent=%s;fw=%s;board=%s;bad=%d" % facts).encode()

    def hello(self, seq, index, body):
        if body[0] != PROTO:
            raise Refused(E_REQUEST, "agent speaks protocol %d, host %d" % (PROTO, body[0]))
        if index == 1:
            return self.text()
        self.idle = max(2, min(3600, ustruct.unpack_from("<H", body, 1)[0] or 10)) * 1000
        self.forget()
        return self.about()

    def forget(self):
        self.stop()
        for slot in list(self.models):
            self.unload(0, slot, b"")
        self.inputs = {}
        self.planes = {}
        self.transfer = None
        self.result = None

    def bye(self, seq, index, body):
        self.running = False
        return b""

    def setbaud(self, seq, index, body):
        if not 9600 <= ustruct.unpack("<IH", body)[0] <= 5242880:
            raise Refused(E_REQUEST, "baud rate out of range")
        return body

    def switch(self, body):
        baud, rx = ustruct.unpack("<IH", body)
        utime.sleep_ms(5 + 40 * 11000 // self.baud)
        self.trial = (self.baud, utime.ticks_add(utime.ticks_ms(), 1000))
        self.rate(baud, max(2048, min(rx, 16384)))

    def rate(self, baud, rx):
        try:
            self.uart.init(baud, 8, None, 1, read_buf_len=rx)
            self.rx = rx
        except MemoryError:
            self.uart.init(baud, 8, None, 1, read_buf_len=2048)
            self.rx = 2048
        self.baud = baud

    # models

    def load(self, seq, slot, body):
        import KPU

        if slot >= SLOTS:
            raise Refused(E_SLOT, "slots are 0 to %d" % (SLOTS - 1))
        self.unload(seq, slot, b"")
        gc.collect()
        where = body[1:].decode() if body[0] else ustruct.unpack_from("<I", body, 1)[0]
        self.models[slot] = KPU.load(where)
        return b""

    def unload(self, seq, slot, body):
        task = self.models.pop(slot, None)
        self.planes.pop(slot, None)
        self.inputs.pop(slot, None)
        if task is not None:
            import KPU

            KPU.deinit(task)
            gc.collect()
        return b""

    def task(self, slot):
        task = self.models.get(slot)
        if task is None:
            raise Refused(E_SLOT, "no model in slot %d" % slot)
        return task

    def setout(self, seq, slot, body):
        import KPU

        idx, w, h, ch = ustruct.unpack("<BHHH", body)
        if not KPU.set_outputs(self.task(slot), idx, w, h, ch):
            raise Refused(E_REQUEST, "set_outputs(%d, %d, %d, %d) does not fit the model" % (idx, w, h, ch))
        return b""

    # input

    def input(self, seq, slot, body):
        self.task(slot)
        size, crc, encoding, w, h, ch = ustruct.unpack("<IIBHHB", body)
        if encoding == 0 and size != w * h * ch:
            raise Refused(E_REQUEST, "%d bytes for %dx%dx%d" % (size, w, h, ch))
        self.inputs[slot] = None
        self.transfer = None
        target = None
        if encoding in (0, 2):
            img, plane = self.plane(slot, w, h, ch)
            if encoding == 0:
                target = plane
        if target is None:
            target = bytearray(size)

        def finish():
            self.inputs[slot] = (encoding, w, h, ch, target)

        self.transfer = Transfer(seq, size, crc, memoryview(target), finish)
        return b""

    def plane(self, slot, w, h, ch):
        """An image of the model's size and the bytes that the KPU will read, or None where they cannot be reached."""
        known = self.planes.get(slot)
        if known and known[0] == (w, h, ch):
            return known[1:]
        import image
        import uctypes

        self.planes.pop(slot, None)
        gc.collect()
        img = image.Image(size=(w, h))
        n = w * h
        if ch == 1:
            img = img.to_grayscale() or img
            img.pix_to_ai()
            plane = uctypes.bytearray_at(uctypes.addressof(img), n)  # pix_to_ai copies gray pixels as they are
        else:
            plane = self.find_plane(img, n)
        self.planes[slot] = ((w, h, ch), img, plane)
        return img, plane

    def find_plane(self, img, n):
        # RGB565 pixels lose bits; the AI plane behind them does not. MaixPy has no call for it, but its image object
        # holds the two pointers side by side. Believed only if a pattern sent through pix_to_ai arrives there.
        import uctypes

        pixels = uctypes.addressof(img)
        dots = uctypes.bytearray_at(pixels, 32)
        for i in range(16):
            dots[2 * i] = dots[2 * i + 1] = 255 * (0xA5C3 >> i & 1)
        img.pix_to_ai()
        size = ustruct.calcsize("P")
        words = ustruct.unpack("8P", bytes(uctypes.bytearray_at(id(img), 8 * size)))
        for i in range(1, 7):
            if words[i] == pixels and words[i + 1]:
                plane = uctypes.bytearray_at(words[i + 1], 3 * n)
                good = True
                for c in range(3):
                    for k in range(16):
                        good = good and plane[c * n + k] >= 248 * (0xA5C3 >> k & 1)
                        good = good and plane[c * n + k] <= 255 * (0xA5C3 >> k & 1)
                return plane if good else None
        return None

    def data(self, flags, seq, index, body):
        t = self.transfer
        if t is None or t.seq != seq:
            self.fail(seq, index, Refused(E_TRANSFER, "no such transfer"))
            return
        try:
            whole = t.answer is not None or t.put(flags, index, body)
            if whole and t.answer is None:
                if ubinascii.crc32(t.target) & 0xFFFFFFFF != t.crc:
                    self.transfer = None
                    raise Refused(E_CRC, "checksum of the whole differs")
                t.finish()
                t.answer = True
        except Exception as e:
            self.fail(seq, index, e)
            return
        have = t.size if whole else t.base << 4
        self.send(ACK, (flags & 0xF0) | whole, seq, index, ustruct.pack("<I", have))

    def picture(self, slot):
        """What kpu.forward takes for the newest input of this slot."""
        got = self.inputs.get(slot)
        if got is None:
            raise Refused(E_REQUEST, "no input for slot %d" % slot)
        encoding, w, h, ch, raw = got
        if encoding == 3:
            return list(ustruct.unpack("<%df" % (len(raw) // 4), raw))
        if encoding == 1:
            import image

            img = image.Image(bytes(raw), from_bytes=True)
            if ch == 1:
                img = img.to_grayscale() or img
            img.pix_to_ai()
            return img
        img, plane = self.plane(slot, w, h, ch)
        if encoding == 2:
            import uio
            import uzlib

            out = plane if plane is not None else bytearray(w * h * ch)
            source = uzlib.DecompIO(uio.BytesIO(raw))
            at = 0
            while at < w * h * ch:
                part = source.read(min(4096, w * h * ch - at))
                if not part:
                    raise Refused(E_REQUEST, "compressed input is %d bytes short" % (w * h * ch - at))
                out[at : at + len(part)] = part
                at += len(part)
            raw = out
        if ch == 1:
            img.pix_to_ai()
        elif plane is None:
            n = w * h
            for i in range(n):
                img[i] = (raw[i], raw[n + i], raw[2 * n + i])
            img.pix_to_ai()
        return img

    # running

    def forward(self, slot, img, mask):
        """Run; (bytes of all outputs, their table, microseconds)."""
        import KPU

        task = self.task(slot)
        first = 0
        while not mask >> first & 1:
            first += 1
        begin = utime.ticks_us()
        fmap = KPU.forward(task, img, first)
        took = utime.ticks_diff(utime.ticks_us(), begin)
        table = b""
        parts = []
        for i in range(first, 8):
            if mask >> i & 1:
                if i != first:
                    fmap = KPU.get_output(task, i)
                raw = bytes(fmap)
                kind = 0 if fmap.typecode() == "B" else 1
                table += ustruct.pack("<BBHHHI", i, kind, fmap.w(), fmap.h(), fmap.ch(), len(raw))
                parts.append(raw)
        return parts[0] if len(parts) == 1 else b"".join(parts), table, took

    def publish(self, flags, seq, slot, shift, raw, table, took, number):
        self.result = None if flags & 2 else (seq, raw)
        head = ustruct.pack("<IIIIB", len(raw), ubinascii.crc32(raw) & 0xFFFFFFFF, took, number, len(table) // 12)
        data = self.send(OUT, flags, seq, slot, head + table)
        count = (len(raw) + (1 << shift) - 1) >> shift
        for i in range(count if flags & 2 else min(64, count)):
            self.piece(seq, raw, shift, i)
        return data

    def piece(self, seq, raw, shift, i):
        part = raw[i << shift : (i + 1) << shift]
        if part:
            last = (i + 1) << shift >= len(raw)
            self.send(DATA, ((shift - 4) << 4) | last, seq, i, part)

    def pull(self, seq, index, body):
        if self.result is None or self.result[0] != seq:
            self.fail(seq, index, Refused(E_TRANSFER, "no such result"))
            return
        shift, low, high = ustruct.unpack("<BII", body)
        for i in range(64):
            if (low >> i if i < 32 else high >> (i - 32)) & 1:
                self.piece(seq, self.result[1], shift, index + i)

    def run(self, seq, slot, body):
        mask, shift, limit = ustruct.unpack("<BBH", body)
        self.task(slot)
        if not mask or not 4 <= shift <= 10:
            raise Refused(E_REQUEST, "RUN needs an output mask and a piece size of 2^4 to 2^10")
        self.result = None
        self.send(ACK, 0, seq, slot)
        img = self.picture(slot)
        dog = machine.WDT(id=0, timeout=limit) if limit else None
        try:
            raw, table, took = self.forward(slot, img, mask)
        finally:
            if dog:
                dog.stop()
        self.reply = self.publish(0, seq, slot, shift, raw, table, took, 0)

    # camera

    def streaming(self, seq, slot, body):
        on, mask, w, h, ch, flags, interval, shift = ustruct.unpack("<BBHHBBHB", body)
        self.stop()
        if not on:
            return b""
        self.task(slot)
        if not mask or not 4 <= shift <= 10:
            raise Refused(E_REQUEST, "STREAM needs an output mask and a piece size of 2^4 to 2^10")
        try:
            import sensor

            sensor.reset()
            sensor.set_pixformat(sensor.RGB565 if ch == 3 else sensor.GRAYSCALE)
            sensor.set_framesize(sensor.QVGA)
            if (w, h) != (320, 240):
                sensor.set_windowing((w, h))
            sensor.set_hmirror(flags & 1)
            sensor.set_vflip(flags >> 1 & 1)
            sensor.run(1)
        except Exception as e:
            raise Refused(E_CAMERA, "camera: %s" % e)
        self.stream = [utime.ticks_ms(), seq, slot, mask, shift, interval, 0]
        return b""

    def shoot(self):
        import sensor

        s = self.stream
        s[0] = utime.ticks_add(utime.ticks_ms(), s[5])
        try:
            img = sensor.snapshot()
            img.pix_to_ai()
            raw, table, took = self.forward(s[2], img, s[3])
            s[6] += 1
            self.publish(2, s[1], s[2], s[4], raw, table, took, s[6])
        except Exception as e:
            self.stop()
            self.fail(s[1], s[2], e)

    def stop(self):
        if self.stream:
            self.stream = None
            try:
                import sensor

                sensor.run(0)
            except Exception:
                pass  # a camera that does not stop is no reason to stop serving

    # files

    def put(self, seq, index, body):
        offset, size, crc = ustruct.unpack_from("<III", body, 0)
        path = body[12:].decode()
        if not 0 < size <= 16384:
            raise Refused(E_REQUEST, "a block is 1 to 16384 bytes")
        target = bytearray(size)

        def finish():
            try:
                have = 0
                if offset:
                    import uos

                    have = uos.stat(path)[6]
                if have != offset:
                    raise Refused(E_FILE, "%s has %d bytes, block begins at %d" % (path, have, offset))
                with open(path, "ab" if offset else "wb") as f:
                    f.write(target)
            except OSError as e:
                raise Refused(E_FILE, "%s: %s" % (path, e))

        self.transfer = None
        self.transfer = Transfer(seq, size, crc, memoryview(target), finish)
        return b""

    def stat(self, seq, index, body):
        path = body.decode()
        if path.endswith("/"):
            import uos

            return "\n".join(uos.listdir(path[:-1] or "/")).encode()[:MAX_PAYLOAD]
        size = crc = 0
        try:
            with open(path, "rb") as f:
                while True:
                    part = f.read(2048)
                    if not part:
                        break
                    size += len(part)
                    crc = ubinascii.crc32(part, crc)
        except OSError:
            return ustruct.pack("<II", 0xFFFFFFFF, 0)
        return ustruct.pack("<II", size, crc & 0xFFFFFFFF)

    def remove(self, seq, index, body):
        import uos

        try:
            uos.remove(body.decode())
        except OSError:
            pass  # gone is what was asked for
        return b""


def main():
    uart = machine.UART.repl_uart()
    micropython.kbd_intr(-1)  # byte 3 would raise KeyboardInterrupt in the middle of a frame
    agent = Agent(uart)
    try:
        agent.loop()
    finally:
        utime.sleep_ms(20)
        agent.forget()
        uart.init(BAUD, 8, None, 1, read_buf_len=2048)
        micropython.kbd_intr(3)


if __name__ == "__main__":
    main()
