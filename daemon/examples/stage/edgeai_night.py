"""A stage for streams of edgeaid. Install it beside edgeaid (`pip install daemon/examples/stage`), then in a table:

    [[stream.porch.stage]]
    call = "night"
    options = { limit = 40 }

It gives each object the brightness of its part of the picture, and tells when the whole picture becomes dark or light.
"""


def night(limit=40, settle=3):
    """Called once when the stream starts, with the stage's options; returns what is called for each frame."""
    if not 0 < limit < 256:
        raise ValueError("limit must lie between 0 and 256")
    state = {"dark": None, "frames": 0}

    def stage(scene):
        pixels = scene.pixels  # [height,width,3] uint8, RGB; valid during this call
        height, width = pixels.shape[:2]
        for thing in scene.objects:
            left, top, right, bottom = thing.box  # 0 to 1
            part = pixels[int(top * height) : int(bottom * height) + 1, int(left * width) : int(right * width) + 1]
            thing.attributes["brightness"] = round(float(part.mean()), 1)
        dark = bool(pixels.mean() < limit)
        state["frames"] = 0 if dark == state["dark"] else state["frames"] + 1
        if state["frames"] >= settle or state["dark"] is None:  # a single dark frame does not count
            state["dark"], state["frames"] = dark, 0
            scene.emit("dark" if dark else "light", brightness=round(float(pixels.mean()), 1))

    return stage
