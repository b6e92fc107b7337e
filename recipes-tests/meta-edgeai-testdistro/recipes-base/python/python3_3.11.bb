SUMMARY = "TEST ONLY: Debian's Python"
inherit debian-repack byte-compiled
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-libs"
do_install:append() {
    site=/usr/lib/python${PYTHON_BASEVERSION}/site-packages
    echo $site > ${D}/usr/lib/python3/dist-packages/oe.pth
    install -d ${D}${libdir}/python-sysconfigdata ${D}$site
    sed "s,'/usr/include,'${STAGING_INCDIR},g" ${D}/usr/lib/python${PYTHON_BASEVERSION}/_sysconfigdata__aarch64-linux-gnu.py \
        > ${D}${libdir}/python-sysconfigdata/_sysconfigdata.py
    touch ${D}$site/.keep
    rm -rf ${D}/usr/lib/python${PYTHON_BASEVERSION}/__pycache__
    rm -f ${D}/usr/lib/*.a ${D}/usr/lib/python${PYTHON_BASEVERSION}/config-*/*.a
    rm -rf ${D}/usr/lib/python${PYTHON_BASEVERSION}/test ${D}/usr/lib/python${PYTHON_BASEVERSION}/lib2to3
}
