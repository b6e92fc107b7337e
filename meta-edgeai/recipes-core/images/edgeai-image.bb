SUMMARY = "Edge AI device: daemon, CPU runtime, default models, rules for every accelerator"
DESCRIPTION = "The image a user flashes with scripts/flash. It runs models on the CPU; runtimes of accelerators are added by the kas features of their names."
require edgeai-image.inc
