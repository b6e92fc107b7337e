SUMMARY = "TEST ONLY: Debian's OpenSSH"
inherit debian-repack
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-base"
do_install:append() {
    rm -rf ${D}/etc/init.d ${D}/etc/ufw ${D}/etc/ssh/moduli
    # what maintainer scripts would have done: one of the two ways to start, and host keys
    rm -f ${D}/usr/lib/systemd/system/ssh.socket
    install -D -m 0644 ${D}/usr/share/openssh/sshd_config ${D}/etc/ssh/sshd_config
    install -d ${D}/usr/lib/systemd/system/ssh.service.d
    printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' > ${D}/usr/lib/systemd/system/ssh.service.d/keys.conf
}
