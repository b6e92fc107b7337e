SUMMARY = "The whole of TensorFlow for Python"
DESCRIPTION = "Comes from the layer meta-tensorflow; skipped where that layer is absent."

inherit packagegroup

RDEPENDS:${PN} = "python3-tensorflow"

python () {
    if "meta-tensorflow" not in (d.getVar("BBFILE_COLLECTIONS") or "").split():
        raise bb.parse.SkipRecipe("needs the layer meta-tensorflow: add kas/feature/tensorflow.yml")
}
