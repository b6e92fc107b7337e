# Bazel that does not take the machine, and never two of them at once.
#
# Inherited by every recipe (conf/layer.conf). A recipe is touched only if a task of it runs Bazel: because it inherits
# meta-tensorflow's bazel-base or bazel, because its code calls bazel, or because it depends on bazel-native. Each such task takes
# turns with all others and gets limits; a recipe whose Bazel would not keep them is skipped, and the reason names the way out.
#
# A recipe of one's own: write the heavy step as do_bazel_compile() and call "bazel ${EDGEAI_BAZEL_STARTUP} build ..." in it.
#
# Each of these can be set by itself; the defaults are computed from the memory and processors that this host, or the container
# it builds in, really has:
#   EDGEAI_BAZEL_JOBS        actions at a time
#   EDGEAI_BAZEL_MEM_MIB     memory that Bazel schedules actions into
#   EDGEAI_BAZEL_JVM_MIB     heap of the Bazel server
#   EDGEAI_BAZEL_LOCK        file that serialises Bazel tasks: all recipes, build directories and containers that name the same one
EDGEAI_BAZEL_JOBS ?= "${@edgeai.buildhost.host_limits()['jobs']}"
EDGEAI_BAZEL_MEM_MIB ?= "${@edgeai.buildhost.host_limits()['memory_mib']}"
EDGEAI_BAZEL_JVM_MIB ?= "${@edgeai.buildhost.host_limits()['jvm_mib']}"
EDGEAI_BAZEL_LOCK ?= "${@edgeai.buildhost.lock_path()}"

# Options that are not limits, such as --define=NAME=VALUE, one a word: part of what is built, and of the signature.
EDGEAI_BAZEL_OPTIONS ?= ""

# Bazel 7 renamed its resource options; meta-tensorflow has Bazel 6 on scarthgap.
EDGEAI_BAZEL_MAJOR ?= "${@'6' if 'scarthgap' in d.getVar('LAYERSERIES_CORENAMES').split() else '7'}"

# The server's heap has no cap by default.
EDGEAI_BAZEL_RC = "${WORKDIR}/edgeai.bazelrc"
EDGEAI_BAZEL_STARTUP = "--bazelrc=${EDGEAI_BAZEL_RC} --host_jvm_args=-Xmx${EDGEAI_BAZEL_JVM_MIB}m"

# What is built does not depend on how many jobs built it: a change of limits must not change a signature.
EDGEAI_BAZEL_JOBS[vardepvalue] = "1"
EDGEAI_BAZEL_MEM_MIB[vardepvalue] = "1"
EDGEAI_BAZEL_JVM_MIB[vardepvalue] = "1"
EDGEAI_BAZEL_LOCK[vardepvalue] = "1"
EDGEAI_BAZEL_STARTUP[vardepvalue] = "1"

# Written right before use, so that a limit changed since do_configure counts.
edgeai_bazel_write_limits[vardepsexclude] = "EDGEAI_BAZEL_JOBS EDGEAI_BAZEL_MEM_MIB EDGEAI_BAZEL_JVM_MIB EDGEAI_BAZEL_LOCK"
python edgeai_bazel_write_limits () {
    import os

    jobs, memory = d.getVar("EDGEAI_BAZEL_JOBS"), d.getVar("EDGEAI_BAZEL_MEM_MIB")
    lines = ["# Limits of this host, written by edgeai_bazel.bbclass."]
    lines += ["build --jobs=%s" % jobs]
    if int(d.getVar("EDGEAI_BAZEL_MAJOR")) >= 7:
        lines += ["build --local_resources=cpu=%s --local_resources=memory=%s" % (jobs, memory)]
    else:
        lines += ["build --local_cpu_resources=%s --local_ram_resources=%s" % (jobs, memory)]
    # After analysis the graph need not be kept.
    lines += ["build --discard_analysis_cache --nokeep_state_after_build --notrack_incremental_state"]
    lines += ["build %s" % option for option in d.getVar("EDGEAI_BAZEL_OPTIONS").split()]
    path = d.getVar("EDGEAI_BAZEL_RC")
    bb.utils.mkdirhier(os.path.dirname(path))
    with open(path, "w", encoding="ascii") as rc:
        rc.write("\n".join(lines) + "\n")

    cpus, ram = edgeai.buildhost.cpu_count(), edgeai.buildhost.memory_bytes()
    bb.note("Bazel may run %s jobs in %s MiB with a heap of %s MiB (usable here: %d processors, %d MiB). One Bazel at a time: %s. "
            "Variables: EDGEAI_BAZEL_JOBS, EDGEAI_BAZEL_MEM_MIB, EDGEAI_BAZEL_JVM_MIB, EDGEAI_BAZEL_LOCK."
            % (jobs, memory, d.getVar("EDGEAI_BAZEL_JVM_MIB"), cpus, ram >> 20, d.getVar("EDGEAI_BAZEL_LOCK")))
}

# A step of that name is a task, held back by number_threads (conf/layer.conf) before it takes a slot of BB_NUMBER_THREADS.
python () {
    if d.getVar("do_bazel_compile", False):
        bb.build.addtask("do_bazel_compile", "do_compile", "do_configure", d)
        d.setVarFlag("do_bazel_compile", "dirs", "${B}")
}

# After all else of a recipe was evaluated: appends, classes, anonymous functions.
addhandler edgeai_bazel_everywhere
edgeai_bazel_everywhere[eventmask] = "bb.event.RecipeTaskPreProcess"
python edgeai_bazel_everywhere () {
    if not edgeai.bazelrun.mentions_bazel(d):
        return
    running = edgeai.bazelrun.tasks_that_run_bazel(d, e.tasklist)
    # A script of the sources may run it as well, in any step of the build.
    hidden = edgeai.bazelrun.tasks_that_may_run_bazel(d, e.tasklist)
    if not running and not hidden:
        return

    # A limit that somebody wrote into the recipe.
    names = {name for task in running for name in edgeai.bazelrun.functions(d, task)}
    names |= {name for name in d.keys() if d.getVarFlag(name, "export", False)}
    for name in names:
        text = d.getVar(name, False)
        if isinstance(text, str) and edgeai.bazelrun.without_written_limits(text) != text:
            d.setVar(name, edgeai.bazelrun.without_written_limits(text))

    # meta-tensorflow's names. Its do_configure writes them into a file, so without the flags a new limit is a new TensorFlow.
    for name, ours in (("BAZEL_JOBS", "EDGEAI_BAZEL_JOBS"), ("BAZEL_MEM", "EDGEAI_BAZEL_MEM_MIB")):
        d.setVar(name, "${%s}" % ours)
        d.setVarFlag(name, "vardepvalue", "1")
    if bb.data.inherits_class("bazel", d):
        d.appendVar("BAZEL_STARTUP_OPTIONS", " ${EDGEAI_BAZEL_STARTUP}")
    # Every Java reads its heap's cap from here, one that is started without Bazel's options too (the bootstrap of Bazel).
    d.setVar("JAVA_TOOL_OPTIONS", "-Xmx${EDGEAI_BAZEL_JVM_MIB}m")
    d.setVarFlag("JAVA_TOOL_OPTIONS", "export", "1")
    d.setVarFlag("JAVA_TOOL_OPTIONS", "vardepvalue", "1")

    running = edgeai.bazelrun.tasks_that_run_bazel(d, e.tasklist)
    for task, text in running.items():
        reason = edgeai.bazelrun.problem(d, task, text)
        if reason:
            raise bb.parse.SkipRecipe(reason)
    for task in dict.fromkeys([*running, *hidden]):
        # One at a time, by BitBake's own means: works between processes and is no part of signatures.
        locks = (d.getVarFlag(task, "lockfiles", False) or "").split()
        d.setVarFlag(task, "lockfiles", " ".join([*locks, "${EDGEAI_BAZEL_LOCK}"]))
        before = (d.getVarFlag(task, "prefuncs", False) or "").split()
        d.setVarFlag(task, "prefuncs", " ".join(["edgeai_bazel_write_limits", *before]))
}
