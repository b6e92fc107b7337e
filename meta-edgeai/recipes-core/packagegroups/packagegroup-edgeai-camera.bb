SUMMARY = "Cameras, video files and network streams as input"
DESCRIPTION = "GStreamer with the elements that edgeaid's streams are made of, libcamera, and the daemon's permissions for both. Nothing \
that OpenEmbedded marks commercial."

inherit packagegroup

RDEPENDS:${PN} = " \
    edgeai-camera \
    glib-networking \
    gstreamer1.0 \
    gstreamer1.0-plugins-bad-jpegformat \
    gstreamer1.0-plugins-bad-pnm \
    gstreamer1.0-plugins-bad-v4l2codecs \
    gstreamer1.0-plugins-bad-videoparsersbad \
    gstreamer1.0-plugins-base-app \
    gstreamer1.0-plugins-base-playback \
    gstreamer1.0-plugins-base-typefindfunctions \
    gstreamer1.0-plugins-base-videoconvertscale \
    gstreamer1.0-plugins-base-videorate \
    gstreamer1.0-plugins-base-videotestsrc \
    gstreamer1.0-plugins-good-avi \
    gstreamer1.0-plugins-good-isomp4 \
    gstreamer1.0-plugins-good-jpeg \
    gstreamer1.0-plugins-good-matroska \
    gstreamer1.0-plugins-good-multifile \
    gstreamer1.0-plugins-good-multipart \
    gstreamer1.0-plugins-good-png \
    gstreamer1.0-plugins-good-rtp \
    gstreamer1.0-plugins-good-rtpmanager \
    gstreamer1.0-plugins-good-rtsp \
    gstreamer1.0-plugins-good-soup \
    gstreamer1.0-plugins-good-udp \
    gstreamer1.0-plugins-good-video4linux2 \
    gstreamer1.0-plugins-good-videofilter \
    libcamera \
    libcamera-gst \
    v4l-utils \
"

python () {
    if "multimedia-layer" not in (d.getVar("BBFILE_COLLECTIONS") or "").split():
        raise bb.parse.SkipRecipe("needs the layer meta-multimedia: add kas/feature/camera.yml")
}
