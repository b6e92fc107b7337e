# For `bitbake --dry-run --no-setscene` in tests. A dry run starts a process for every one of thousands of tasks, which parses the recipe
# once more and then does nothing. Tasks marked noexec are resolved, hashed and scheduled in the same order without that process.
# The event comes after everything else of a recipe was evaluated, so nothing of it sees the mark.
# (Without --no-setscene BitBake takes a noexec task for one that is done, and leaves out what it depends on.)
addhandler dry_run_quick
dry_run_quick[eventmask] = "bb.event.RecipeTaskPreProcess"
python dry_run_quick () {
    for task in e.tasklist:
        e.data.setVarFlag(task, "noexec", "1")
}
