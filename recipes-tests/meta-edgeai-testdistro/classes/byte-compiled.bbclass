# TEST ONLY: modules as OE's own Python packages hold them, compiled. Debian compiles when it installs, wheels when pip does;
# without it an emulated processor compiles the standard library at every start. Debian's Python of the host has the same
# version. The mtimes of sources change on their way into the image, so nothing may depend on them.
byte_compile() {
    /usr/bin/python3 -m compileall -q -s ${D} -p / --invalidation-mode unchecked-hash ${D}/usr/lib/python${PYTHON_BASEVERSION} || bbnote "not every module compiles"
}
do_install[postfuncs] += "byte_compile"
