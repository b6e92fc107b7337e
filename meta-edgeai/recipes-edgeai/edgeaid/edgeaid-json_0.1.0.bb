SUMMARY = "edgeaid: fast JSON"
DESCRIPTION = "What edgeaid imports where it is there: tensors and answers in JSON cost the daemon a fraction of the time."
require edgeaid-extra.inc

RDEPENDS:${PN} += "python3-orjson"

python () {
    if d.getVar("LAYERSERIES_CORENAMES") == "scarthgap":
        raise bb.parse.SkipRecipe("meta-python of scarthgap has no python3-orjson; wrynose has: ./scripts/build --release wrynose")
}
