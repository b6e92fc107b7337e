require toy.inc

python do_compile() {
    import subprocess

    environment = {"PATH": d.getVar("PATH"), "TOY_LOG": d.getVar("TOY_LOG"), "TOY_NAME": d.getVar("PN")}
    subprocess.run(["bazelisk", *d.getVar("EDGEAI_BAZEL_STARTUP").split(), "build", "//toy"], check=True, env=environment)
}
