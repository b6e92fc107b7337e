SUMMARY = "TEST ONLY: Debian's systemd and base tools"
inherit debian-repack
DEPENDS = "glibc debian-libs"
# volatile-binds and systemd-conf (DHCP on wired networks): as OE's systemd does
RDEPENDS:${PN} = "debian-libs base-passwd systemd-conf volatile-binds"
do_install:append() {
    # what maintainer scripts would have written
    for kind in auth account password session; do echo "$kind required pam_permit.so" > ${D}/etc/pam.d/common-$kind; done
    cp ${D}/etc/pam.d/common-session ${D}/etc/pam.d/common-session-noninteractive
    ln -sf bash ${D}/usr/bin/sh
    for t in vi less ping find gzip; do [ -e ${D}/usr/bin/$t ] || ln -s busybox ${D}/usr/bin/$t; done
    rm -f ${D}/etc/profile ${D}/etc/motd ${D}/etc/issue ${D}/etc/shells
    rm -rf ${D}/etc/init.d ${D}/etc/rc?.d ${D}/var/lib/dpkg ${D}/run ${D}/var/run
    ln -sf /usr/lib/systemd/system/multi-user.target ${D}/usr/lib/systemd/system/default.target
    # timers of Debian that have no place on an appliance
    rm -f ${D}/usr/lib/systemd/system/e2scrub* ${D}/usr/lib/systemd/system/fstrim.timer
    # /var/tmp and /var/log are in memory (base-files); OE's systemd recipe makes their directories
    printf 'd /run/lock 1777 - - -\nd /var/volatile/log - - - -\nd /var/volatile/tmp 1777 - -\n' > ${D}/usr/lib/tmpfiles.d/00-create-volatile.conf
    # /tmp is in memory, as with OE's systemd: a private /dev is put together in it, also where the root is read-only
    install -d ${D}/usr/lib/systemd/system/local-fs.target.wants
    mv ${D}/usr/share/systemd/tmp.mount ${D}/usr/lib/systemd/system/
    ln -s ../tmp.mount ${D}/usr/lib/systemd/system/local-fs.target.wants/tmp.mount
    # asks questions on the console; OE builds systemd without it
    rm -f ${D}/usr/lib/systemd/system/systemd-firstboot.service ${D}/usr/lib/systemd/system/*/systemd-firstboot.service
    rm -rf ${D}/etc/systemd/system/*
}
