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
    # As OE's: keys of a read-only root are in memory, and /etc/default/ssh (written by the image class) names this configuration.
    sed -e '/^#\?HostKey/d' ${D}/etc/ssh/sshd_config > ${D}/etc/ssh/sshd_config_readonly
    echo 'HostKey /run/ssh/etc/ssh/ssh_host_ed25519_key' >> ${D}/etc/ssh/sshd_config_readonly
    cat > ${D}/usr/lib/systemd/system/ssh.service.d/keys.conf <<'EOF'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'if [ -w /etc/ssh ]; then exec ssh-keygen -A; else mkdir -p /run/ssh/etc/ssh && exec ssh-keygen -A -f /run/ssh; fi'
ExecStartPre=/usr/sbin/sshd -t $SSHD_OPTS
EOF
}
