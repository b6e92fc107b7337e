SUMMARY = "TEST ONLY: Debian's aarch64 cross compiler under OE's names"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
inherit cross
BPN = "debian-cross"
PN = "debian-cross-${TARGET_ARCH}"
PROVIDES = "gcc-cross-${TARGET_ARCH} virtual/${TARGET_PREFIX}gcc virtual/${TARGET_PREFIX}g++ virtual/${TARGET_PREFIX}binutils virtual/cross-cc virtual/cross-c++ virtual/cross-binutils"
TOOLCHAIN = "debian"
INHIBIT_DEFAULT_DEPS = "1"
INHIBIT_SYSROOT_STRIP = "1"
deltask do_package
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install() {
    install -d ${D}${bindir}
    for t in gcc g++ cpp ar as ld ld.bfd ld.gold nm objcopy objdump ranlib readelf size strings strip c++filt addr2line elfedit gcc-ar gcc-nm gcc-ranlib gcov; do
        [ -x /usr/bin/aarch64-linux-gnu-$t ] || continue
        printf '#!/bin/sh\nexec /usr/bin/aarch64-linux-gnu-%s "$@"\n' "$t" > ${D}${bindir}/${TARGET_PREFIX}$t
        chmod 755 ${D}${bindir}/${TARGET_PREFIX}$t
    done
    # gcc 12 lacks one option of OE's gcc 13+
    for t in gcc g++; do
        cat > ${D}${bindir}/${TARGET_PREFIX}$t <<'EOF'
#!/bin/bash
a=()
for x in "$@"; do [ "$x" = -fcanon-prefix-map ] || a+=("$x"); done
EOF
        echo "exec /usr/bin/aarch64-linux-gnu-$t \"\${a[@]}\"" >> ${D}${bindir}/${TARGET_PREFIX}$t
    done
}
