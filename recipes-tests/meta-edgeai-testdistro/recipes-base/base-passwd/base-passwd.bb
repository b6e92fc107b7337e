SUMMARY = "TEST ONLY: Debian's passwd and group"
inherit debian-repack
do_install:append() {
    install -d ${D}${sysconfdir}
    sed 's/^root:[^:]*:/root::/; s,:/bin/bash$,:/bin/sh,' ${D}/usr/share/base-passwd/passwd.master > ${D}${sysconfdir}/passwd
    cp ${D}/usr/share/base-passwd/group.master ${D}${sysconfdir}/group
    id=101
    for user in messagebus systemd-network systemd-resolve systemd-timesync sshd; do
        echo "$user:*:$id:$id::/:/usr/sbin/nologin" >> ${D}${sysconfdir}/passwd
        echo "$user:*:$id:" >> ${D}${sysconfdir}/group
        id=$(expr $id + 1)
    done
    for group in systemd-journal netdev kvm input render sgx; do
        echo "$group:*:$id:" >> ${D}${sysconfdir}/group
        id=$(expr $id + 1)
    done
}
SYSROOT_DIRS += "${sysconfdir}"
