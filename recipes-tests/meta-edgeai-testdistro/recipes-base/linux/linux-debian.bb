SUMMARY = "TEST ONLY: Debian's arm64 kernel"
inherit debian-repack deploy
PACKAGE_ARCH = "${MACHINE_ARCH}"
FILES:${PN} = "/usr/lib/modules /boot"
# modules that the emulated boards and the tests use; the whole tree would be 300 MB
KEEP_MODULES = "virtio|/ext4/|jbd2|mbcache|crc16|crc32c|libcrc32c|vfat|/fat/|nls_|failover|9p|overlay|fuse|\
xhci|ehci|uhci|ohci|usbcore|usb-common|cdc-acm|cdc_|usbnet|usbserial|ftdi_sio|cp210x|ch341|usbip|vhci|usb-storage|\
autofs|binfmt_misc|configfs|libcomposite|dummy_hcd|usb_f_|udc-core|i6300esb|softdog|bcm2835|sdhci|mmc_block|mmc_core|dwc2|smsc95xx|mii|phy-generic|\
raspberrypi|vivid|/cec/|videobuf2|videodev|v4l2|/mc/|squashfs|loop|dm-|zram|\
virtio-rng|rng-core|mac80211|cfg80211|rfkill|libarc4|dns_resolver|netfs|fscache|roles|ulpi|usbmon|iproc|pwm"
do_install:append() {
    rm -rf ${D}/usr/lib/linux-image-* ${D}/usr/share
    rm -f ${D}/boot/*
    cd ${D}/usr/lib/modules/*/kernel
    find . -name '*.ko*' | grep -v -E '${KEEP_MODULES}' | xargs rm -f
    find . -type d -empty -delete
    depmod -b ${D}/usr $(basename ${D}/usr/lib/modules/*) || depmod -b ${D} $(basename ${D}/usr/lib/modules/*)
}
do_deploy() {
    rm -rf ${WORKDIR}/unpacked
    dpkg-deb -x ${DEB_FILES} ${WORKDIR}/unpacked
    install -m 0644 ${WORKDIR}/unpacked/boot/vmlinuz-* ${DEPLOYDIR}/Image
    cd ${WORKDIR}/unpacked/usr/lib/linux-image-*/broadcom
    install -m 0644 bcm2711-rpi-4-b.dtb bcm2837-rpi-3-b.dtb ${DEPLOYDIR}/
}
addtask deploy after do_install before do_build
do_deploy[depends] += "dpkg-native:do_populate_sysroot"
