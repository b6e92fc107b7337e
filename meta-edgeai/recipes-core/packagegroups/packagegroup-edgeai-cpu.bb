SUMMARY = "Runtime for models on the CPU"
DESCRIPTION = "TensorFlow Lite (LiteRT) for Python, from source or as the published wheel: EDGEAI_CPU_RUNTIME."

EDGEAI_CPU_RUNTIME ??= "python3-ai-edge-litert-bin"
inherit packagegroup

RDEPENDS:${PN} = "${EDGEAI_CPU_RUNTIME}"
