# TEST ONLY, inherited by every recipe: what Debian's tools need that OE's own patched ones do not.
python () {
    if bb.data.inherits_class("populate_sdk_base", d):
        # no SDKs here: their recipes are masked
        for task in ("do_populate_sdk", "do_populate_sdk_ext", "do_sdk_depends"):
            d.setVarFlag(task, "depends", "")
            d.setVarFlag(task, "rdepends", "")
            bb.build.deltask(task, d)
    if bb.data.inherits_class("python3native", d) and not bb.data.inherits_class("native", d):
        # Debian's Python does not look for its headers in the recipe sysroot (OE patches its own)
        for var in ("TARGET_CFLAGS", "CFLAGS", "CXXFLAGS"):
            d.appendVar(var, " -I${STAGING_INCDIR}/python${PYTHON_BASEVERSION}")
        d.setVar("_PYTHON_HOST_PLATFORM", "linux-aarch64")
        d.setVarFlag("_PYTHON_HOST_PLATFORM", "export", "1")
}
