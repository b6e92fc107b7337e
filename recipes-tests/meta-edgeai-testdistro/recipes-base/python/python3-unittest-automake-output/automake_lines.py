"""TEST ONLY: pytest --automake prints `PASS: name`, `FAIL: name`, `SKIP: name` or `ERROR: name`, a line for each test."""

import pytest


def pytest_addoption(parser):
    """The option of run-ptest."""
    parser.addoption("--automake", action="store_true", help="a line for each test as Automake prints it")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Once the terminal's reporter is there: only what it writes is not captured."""
    if config.option.automake:
        config.pluginmanager.register(Lines(config.pluginmanager.get_plugin("terminalreporter")), "automake-lines")


class Lines:
    """The lines, beside pytest's own report."""

    def __init__(self, terminal):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report):
        """One phase of one test: its setup and teardown count where they fail, its call always."""
        if report.skipped:
            self._line("XFAIL" if hasattr(report, "wasxfail") else "SKIP", report)
        elif report.when == "call":
            self._line("PASS" if report.passed else "FAIL", report)
        elif report.failed:
            self._line("ERROR", report)

    def _line(self, word, report):
        self.terminal.ensure_newline()
        self.terminal.write_line(f"{word}: {report.nodeid}")
