SUMMARY = "Edge AI device: daemon, CPU runtime, default models, rules for every accelerator"
DESCRIPTION = "The image a user flashes. Accelerator runtimes come with the kas features."
require edgeai-image.inc
