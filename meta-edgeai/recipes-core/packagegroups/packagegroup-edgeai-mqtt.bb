SUMMARY = "MQTT and Home Assistant"
DESCRIPTION = "Tells an MQTT broker what streams, accelerators and models do; Home Assistant finds them by itself."

inherit packagegroup

RDEPENDS:${PN} = "edgeaid-mqtt"
