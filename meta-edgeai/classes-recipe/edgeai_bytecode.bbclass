# Python modules that a recipe installs file by file are compiled, as those of every package with a build system are: on a read-only
# root nothing could be written at their first start. The times of sources change on their way into an image, so nothing depends on them.
inherit python3native

edgeai_compile_modules () {
    nativepython3 -m compileall -q -s ${D} -p / --invalidation-mode unchecked-hash ${D}${PYTHON_SITEPACKAGES_DIR}
}
do_install[postfuncs] += "edgeai_compile_modules"
