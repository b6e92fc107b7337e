# ruff: noqa: UP031  MicroPython 1.11 has no f-strings
"""Shim of MaixPy's KPU: names, order of checks and error texts as there; the arithmetic is done by the line process."""

import hw
import image

_loaded = []


class FMap(bytes):
    def _about(self, index, w, h, ch, typecode):
        self._facts = (index, w, h, ch, typecode)
        return self

    def size(self):
        return len(self)

    def index(self):
        return self._facts[0]

    def w(self):
        return self._facts[1]

    def h(self):
        return self._facts[2]

    def ch(self):
        return self._facts[3]

    def typecode(self):
        return self._facts[4]


class Task:
    def __init__(self, where, facts):
        self.where = where
        self.version = int(facts[0])
        self.input = [int(x) for x in facts[1].split(",")]  # w, h, ch; or 0, 0, floats
        self.sizes = [int(x) for x in facts[2].split(",")]
        self.kind = facts[3]
        self.shapes = {}
        self.outputs = None


def load(where):
    if isinstance(where, int):
        if where <= 0:
            raise ValueError("[MAIXPY]kpu: model_addr must > 0 ")
    elif ".kmodel" not in where and ".smodel" not in where and ".emodel" not in where:
        raise ValueError("[MAIXPY]kpu: model format don't match, only supply .kmodel ")
    if len(_loaded) >= 5:
        text = "ERR_MODELS_FULL: we only support load 5 models in the same time"
        raise ValueError("[MAIXPY]kpu: load error:2009, " + text)
    answer = hw.call(b"L" + str(where).encode()).decode()
    if answer.startswith("error "):
        raise ValueError("[MAIXPY]kpu: load error:" + answer[6:])
    task = Task(where, answer.split(";"))
    _loaded.append(task)
    return task


def deinit(task):
    if task in _loaded:
        _loaded.remove(task)
    return True


def set_outputs(task, idx, w, h, ch):
    if task.version != 4:
        print("[MAIXPY]kpu: only kmodel v4")
        return False
    if idx >= len(task.sizes):
        print("ERR 2011")
        return False
    if w * h * ch * 4 != task.sizes[idx]:
        print("[MAIXPY]kpu: output size is %d, not %d" % (task.sizes[idx] // 4, w * h * ch))
        return False
    task.shapes[idx] = (w, h, ch)
    return True


def _bytes_in(task, img):
    if isinstance(img, image.Image):
        w, h, ch = task.input
        if img.ai is None:
            print("[MAIXPY]kpu: pix_ai is NULL!")
            raise ValueError("[MAIXPY]kpu: check img format err!")
        if (img.width(), img.height()) != (w, h) or ch != (1 if img.gray else 3):
            print("[MAIXPY]kpu: img w=%d,h=%d, but model w=%d,h=%d" % (img.width(), img.height(), w, h))
            raise ValueError("[MAIXPY]kpu: check img format err!")
        return bytes(img.ai)
    if isinstance(img, list):
        import ustruct

        return ustruct.pack("<%df" % len(img), *img)
    raise ValueError("input not support")


def forward(task, img, out_index=0):
    raw = _bytes_in(task, img)
    if task.version == 4 and len(task.shapes) < len(task.sizes):
        raise OSError("ERR_OUTPUTS_SET: need kpu.set_outputs() to set shape")
    got = hw.call(b"F" + str(task.where).encode() + b"\n" + raw)
    task.outputs = []
    at = 0
    for size in task.sizes:
        task.outputs.append(got[at : at + size])
        at += size
    return get_output(task, out_index)


def get_output(task, idx):
    if idx >= len(task.sizes):
        raise OSError("sipeed_kpu_get_output err")
    raw = task.outputs[idx]
    if task.version == 4:
        w, h, ch = task.shapes[idx]
        return FMap(raw)._about(idx, w, h, ch, "f")
    return FMap(raw)._about(idx, len(raw) // (4 if task.kind == "f" else 1), 1, 1, task.kind)
