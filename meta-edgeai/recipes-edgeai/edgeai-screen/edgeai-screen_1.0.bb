SUMMARY = "Fills the screen with a camera or a stream of the daemon"
DESCRIPTION = "Client of Weston's kiosk shell; what it shows is chosen in /etc/edgeai/screen.conf. On images with the feature weston."
SECTION = "graphics"
HOMEPAGE = "${EDGEAI_PROJECT_URL}"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = "file://device"
S = "${UNPACKDIR}/device"

inherit allarch features_check systemd

# What plays a picture on a screen needs them; without, its recipes are left out.
REQUIRED_DISTRO_FEATURES = "opengl pam systemd wayland"

SYSTEMD_SERVICE:${PN} = "edgeai-screen.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/screen ${D}${nonarch_libdir}/edgeai/screen
    install -D -m 0644 ${S}/screen.conf ${D}${sysconfdir}/edgeai/screen.conf
    install -D -m 0644 ${S}/edgeai-screen.service ${D}${systemd_system_unitdir}/edgeai-screen.service
    install -D -m 0644 ${S}/10-edgeai-kiosk.conf ${D}${systemd_system_unitdir}/weston.service.d/10-edgeai-kiosk.conf
}

FILES:${PN} = "${nonarch_libdir}/edgeai ${sysconfdir}/edgeai ${systemd_system_unitdir}"
CONFFILES:${PN} = "${sysconfdir}/edgeai/screen.conf"

RDEPENDS:${PN} = " \
    curl \
    gstreamer1.0 \
    gstreamer1.0-plugins-bad-waylandsink \
    gstreamer1.0-plugins-base-playback \
    gstreamer1.0-plugins-base-videoconvertscale \
    gstreamer1.0-plugins-good-jpeg \
    gstreamer1.0-plugins-good-multipart \
    gstreamer1.0-plugins-good-video4linux2 \
"
