SUMMARY = "TEST ONLY: links Debian's host tools into the native sysroot"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
REPLACED_NAME = "host-tools-native"
inherit replaced-names native
INHIBIT_DEFAULT_DEPS = "1"
# Releases that have wic in a repository of its own name a directory with one.
TESTDISTRO_WIC_SCRIPTS ?= ""
SRC_URI = "file://apt.conf.sample file://bmaptool file://dpkg file://installer_shim.py file://systemctl file://update-alternatives file://useradd \
    file://${DL_DIR}/setuptools-69.5.1-py3-none-any.whl;unpack=0 \
"
S = "${UNPACKDIR}"
do_patch[depends] = ""
do_unpack[depends] = ""
do_configure[noexec] = "1"
do_compile[noexec] = "1"

python () {
    entry = replaced_entry(d)
    d.setVar("HOST_TOOLS", " ".join(entry["tools"]))
    d.setVar("HOST_SYSTEM_TOOLS", " ".join(entry["system_tools"]))
}

do_install() {
    install -d ${D}${bindir}/python3-native ${D}${sbindir} ${D}${libdir} ${D}${sysconfdir}/apt ${D}${datadir}/testdistro
    for t in ${HOST_TOOLS}; do
        if [ -e /usr/bin/$t ]; then ln -s /usr/bin/$t ${D}${bindir}/$t; else bbnote "no host tool $t"; fi
    done
    for t in ${HOST_SYSTEM_TOOLS}; do
        if [ -e /usr/sbin/$t ]; then ln -s /usr/sbin/$t ${D}${sbindir}/$t; else bbnote "no host tool $t"; fi
    done
    ln -s /usr/lib/rpm ${D}${libdir}/rpm
    for t in bmaptool dpkg update-alternatives systemctl; do install -m 0755 ${S}/$t ${D}${bindir}/$t; done
    for t in useradd groupadd groupmems; do install -m 0755 ${S}/useradd ${D}${sbindir}/$t; done
    printf '#!/bin/sh\nexit 0\n' > ${D}${bindir}/update-rc.d
    chmod 755 ${D}${bindir}/update-rc.d

    # Debian's interpreter with newer setuptools; the other thing missing is OE's --interpreter option of "installer"
    install -d ${D}${datadir}/testdistro/site
    /usr/bin/python3 -m zipfile -e ${DL_DIR}/setuptools-69.5.1-py3-none-any.whl ${D}${datadir}/testdistro/site
    install -m 0644 ${S}/installer_shim.py ${D}${datadir}/testdistro/
    cat > ${D}${bindir}/python3-native/python3 <<'EOT'
#!/bin/sh
here=$(dirname $(readlink -f "$0"))
export PYTHONPATH="$here/../../share/testdistro/site${PYTHONPATH:+:$PYTHONPATH}"
if [ "$1" = "-m" ] && [ "$2" = "installer" ]; then shift 2; exec /usr/bin/python3 "$here/../../share/testdistro/installer_shim.py" "$@"; fi
exec /usr/bin/python3 "$@"
EOT
    chmod 755 ${D}${bindir}/python3-native/python3
    cp ${D}${bindir}/python3-native/python3 ${D}${bindir}/python3-native/nativepython3
    ln -s python3-native/nativepython3 ${D}${bindir}/nativepython3
    # newer oe-core calls the console script of python3-build
    printf '#!/bin/sh\nexec $(dirname $(readlink -f "$0"))/python3-native/python3 -m build "$@"\n' > ${D}${bindir}/pyproject-build
    chmod 755 ${D}${bindir}/pyproject-build

    if [ "${TESTDISTRO_WIC_SCRIPTS}" ]; then
        printf '#!/bin/sh\nPATH=${COREBASE}/../bitbake/bin:$PATH exec /usr/bin/python3 ${TESTDISTRO_WIC_SCRIPTS}/wic "$@"\n' > ${D}${bindir}/wic
        chmod 755 ${D}${bindir}/wic
    fi

    install -m 0644 ${S}/apt.conf.sample ${D}${sysconfdir}/apt/
    install -d ${D}${localstatedir}/lib/apt ${D}${localstatedir}/cache/apt/archives/partial ${D}${localstatedir}/log/apt
    touch ${D}${localstatedir}/lib/apt/.keep ${D}${localstatedir}/cache/apt/archives/partial/.keep ${D}${localstatedir}/log/apt/.keep
    # apt wants absolute names; the native sysroot's is known when it is staged
    sed -i 's,@STAGING@,${STAGING_DIR_NATIVE},g' ${D}${sysconfdir}/apt/apt.conf.sample
}
SYSROOT_DIRS_NATIVE:append = " ${localstatedir} ${datadir} ${sysconfdir}"
INHIBIT_SYSROOT_STRIP = "1"
