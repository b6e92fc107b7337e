# Bazel that does not take the machine, and never two of them at once.
#
# For a recipe that inherits another layer's "bazel" class and runs Bazel in do_compile (meta-tensorflow): inherit this in a
# bbappend, nothing else. For a recipe of one's own: write the heavy step as do_bazel_compile() and inherit this.
#
# Set in local.conf, each by itself, whatever does not suit; the defaults are computed from the memory and processors that
# this host, or the container it builds in, really has:
#   EDGEAI_BAZEL_JOBS        actions at a time
#   EDGEAI_BAZEL_MEM_MIB     memory that Bazel schedules actions into
#   EDGEAI_BAZEL_JVM_MIB     heap of the Bazel server
#   EDGEAI_BAZEL_LOCK        file that serialises Bazel tasks: all recipes and build directories that name the same one
EDGEAI_BAZEL_JOBS ?= "${@edgeai.buildhost.host_limits()['jobs']}"
EDGEAI_BAZEL_MEM_MIB ?= "${@edgeai.buildhost.host_limits()['memory_mib']}"
EDGEAI_BAZEL_JVM_MIB ?= "${@edgeai.buildhost.host_limits()['jvm_mib']}"
EDGEAI_BAZEL_LOCK ?= "${@edgeai.buildhost.lock_path()}"

# What is built does not depend on how many jobs built it: a change of limits must not change a signature.
EDGEAI_BAZEL_JOBS[vardepvalue] = "1"
EDGEAI_BAZEL_MEM_MIB[vardepvalue] = "1"
EDGEAI_BAZEL_JVM_MIB[vardepvalue] = "1"
EDGEAI_BAZEL_LOCK[vardepvalue] = "1"

# meta-tensorflow's names. Its do_configure writes them into a bazelrc, so without the flags a new limit is a new TensorFlow.
BAZEL_JOBS = "${EDGEAI_BAZEL_JOBS}"
BAZEL_MEM = "${EDGEAI_BAZEL_MEM_MIB}"
BAZEL_JOBS[vardepvalue] = "1"
BAZEL_MEM[vardepvalue] = "1"

# The server's heap has no cap by default, and after analysis the graph need not be kept.
EDGEAI_BAZEL_STARTUP = "--host_jvm_args=-Xmx${EDGEAI_BAZEL_JVM_MIB}m"
EDGEAI_BAZEL_STARTUP[vardepvalue] = "1"
EDGEAI_BAZEL_RC = "${WORKDIR}/edgeai.bazelrc"
BAZEL_STARTUP_OPTIONS:append = " --bazelrc=${EDGEAI_BAZEL_RC} ${EDGEAI_BAZEL_STARTUP}"

# Parts of TensorFlow that a device has no use for. --define and not --config: an unknown define is ignored by releases
# that dropped the option, an unknown config stops Bazel.
EDGEAI_BAZEL_DEFINES ?= "no_aws_support=true no_hdfs_support=true no_nccl_support=true"

# One at a time, by BitBake's own means. lockfiles works between processes and is no part of signatures, but a waiting task
# holds a slot of BB_NUMBER_THREADS; do_bazel_compile is held back by number_threads (conf/layer.conf) before it takes one.
do_compile[lockfiles] += "${@'' if edgeai_bazel_own_task(d) else d.getVar('EDGEAI_BAZEL_LOCK')}"
do_bazel_compile[lockfiles] += "${EDGEAI_BAZEL_LOCK}"

def edgeai_bazel_own_task(d):
    return bool(d.getVar("do_bazel_compile", False))

# Written right before use, so that a limit changed since do_configure counts.
edgeai_bazel_write_limits[vardepsexclude] = "EDGEAI_BAZEL_JOBS EDGEAI_BAZEL_MEM_MIB EDGEAI_BAZEL_JVM_MIB EDGEAI_BAZEL_LOCK"
python edgeai_bazel_write_limits () {
    import os

    jobs, memory = d.getVar("EDGEAI_BAZEL_JOBS"), d.getVar("EDGEAI_BAZEL_MEM_MIB")
    lines = ["# Limits of this host, written by edgeai_bazel.bbclass."]
    lines += ["build --jobs=%s" % jobs]
    if edgeai_bazel_has_local_resources(d):
        lines += ["build --local_resources=cpu=%s --local_resources=memory=%s" % (jobs, memory)]
    else:
        lines += ["build --local_cpu_resources=%s --local_ram_resources=%s" % (jobs, memory)]
    lines += ["build --discard_analysis_cache --nokeep_state_after_build --notrack_incremental_state"]
    lines += ["build --define=%s" % define for define in d.getVar("EDGEAI_BAZEL_DEFINES").split()]
    path = d.getVar("EDGEAI_BAZEL_RC")
    bb.utils.mkdirhier(os.path.dirname(path))
    with open(path, "w", encoding="ascii") as rc:
        rc.write("\n".join(lines) + "\n")

    cpus, ram = edgeai.buildhost.cpu_count(), edgeai.buildhost.memory_bytes()
    bb.note("Bazel may run %s jobs in %s MiB with a heap of %s MiB (usable here: %d processors, %d MiB). One Bazel at a time: %s. "
            "Variables: EDGEAI_BAZEL_JOBS, EDGEAI_BAZEL_MEM_MIB, EDGEAI_BAZEL_JVM_MIB, EDGEAI_BAZEL_LOCK."
            % (jobs, memory, d.getVar("EDGEAI_BAZEL_JVM_MIB"), cpus, ram >> 20, d.getVar("EDGEAI_BAZEL_LOCK")))
}

def edgeai_bazel_has_local_resources(d):
    """Bazel 7 renamed its resource flags; scarthgap's meta-tensorflow has Bazel 6."""
    return "scarthgap" not in d.getVar("LAYERSERIES_CORENAMES").split()

# On the command line it would win over every limit.
CUSTOM_BAZEL_FLAGS:remove = "--jobs=auto"

python () {
    task = "do_bazel_compile" if edgeai_bazel_own_task(d) else "do_compile"
    # do_configure of meta-tensorflow's class starts Bazel once; a start-up file that is named must exist by then.
    for step in ("do_configure", task):
        d.appendVarFlag(step, "prefuncs", " edgeai_bazel_write_limits")

    if edgeai_bazel_own_task(d):
        bb.build.addtask("do_bazel_compile", "do_compile", "do_configure", d)
        d.setVarFlag("do_bazel_compile", "dirs", "${B}")

    # Without XNNPACK the CPU of a Raspberry Pi is several times slower.
    compile_step = d.getVar("do_compile", False) or ""
    if "tflite_with_xnnpack=false" in compile_step:
        d.setVar("do_compile", compile_step.replace("tflite_with_xnnpack=false", "tflite_with_xnnpack=true"))
}
