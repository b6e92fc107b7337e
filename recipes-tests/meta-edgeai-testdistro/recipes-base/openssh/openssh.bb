SUMMARY = "TEST ONLY: Debian's OpenSSH"
inherit debian-repack
DEPENDS = "glibc debian-libs"
RDEPENDS:${PN} = "debian-base"
OE_FILES = "${COREBASE}/meta/recipes-connectivity/openssh/openssh"
do_install[file-checksums] += "${OE_FILES}/sshd_check_keys:True ${OE_FILES}/sshdgenkeys.service:True"
do_install:append() {
    rm -rf ${D}/etc/init.d ${D}/etc/ufw ${D}/etc/ssh/moduli
    # what maintainer scripts would have done: one of the two ways to start, and host keys
    rm -f ${D}/usr/lib/systemd/system/ssh.socket
    install -D -m 0644 ${D}/usr/share/openssh/sshd_config ${D}/etc/ssh/sshd_config
    install -d ${D}/usr/lib/systemd/system/ssh.service.d
    # As OE's: keys of a read-only root are in memory, and /etc/default/ssh (written by the image class) names this configuration.
    sed -e '/^#\?HostKey/d' ${D}/etc/ssh/sshd_config > ${D}/etc/ssh/sshd_config_readonly
    for kind in rsa ecdsa ed25519; do
        echo "HostKey /etc/ssh/ssh_host_${kind}_key" >> ${D}/etc/ssh/sshd_config
        echo "HostKey /var/run/ssh/ssh_host_${kind}_key" >> ${D}/etc/ssh/sshd_config_readonly
    done
    # OE's own unit and script make the keys. Debian's sshd cannot print a configuration whose keys are missing (-G).
    install -D -m 0755 ${OE_FILES}/sshd_check_keys ${D}/usr/libexec/openssh/sshd_check_keys
    sed -i 's,^HOST_KEYS=.*,HOST_KEYS=$(sed -n "s/^HostKey //p" "$sshd_config"),' ${D}/usr/libexec/openssh/sshd_check_keys
    sed 's,@LIBEXECDIR@,/usr/libexec/openssh,' ${OE_FILES}/sshdgenkeys.service > ${D}/usr/lib/systemd/system/sshdgenkeys.service
    cat > ${D}/usr/lib/systemd/system/ssh.service.d/keys.conf <<'EOF'
[Unit]
Wants=sshdgenkeys.service
After=sshdgenkeys.service
[Service]
ExecStartPre=
ExecStartPre=/usr/sbin/sshd -t $SSHD_OPTS
EOF
}
