"""Runs the tests and writes down how they went. Written by pytheas; `guard.py` is at work before.

Usage: run.py RESULT JUNIT MODE [ARGUMENT…]; JUNIT may be empty.
"""

import os
import re
import sys
import time


class Result:
    def __init__(self):
        self.tests = []
        self.missing = []

    def add(self, name, outcome, seconds, text=""):
        for module in re.findall(r"No module named '([^']+)'", text):
            if module not in self.missing:
                self.missing.append(module)
        self.tests.append({"name": name, "outcome": outcome, "seconds": round(seconds, 6), "text": text})

    def write(self, path, code):
        import json

        whole = {"code": code, "tests": self.tests, "missing": self.missing}
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            json.dump(whole, file)


class Recorder:
    """A plug-in of pytest."""

    def __init__(self, result):
        self.result = result

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.outcome == "passed":
            return
        outcome = report.outcome
        if outcome not in ("passed", "failed", "skipped"):
            return  # a plug-in's own word, such as `rerun`: what counts follows
        if outcome == "failed" and report.when != "call":
            outcome = "error"
        self.result.add(report.nodeid, outcome, report.duration, self.text(report))

    def pytest_collectreport(self, report):
        if report.outcome != "passed":
            outcome = "error" if report.failed else "skipped"
            self.result.add(report.nodeid, outcome, 0.0, self.text(report))

    @staticmethod
    def text(report):
        return report.longreprtext if report.outcome == "failed" else ""


def pytest(result, junit, arguments):
    import pytest as runner

    if junit:
        arguments = ["--junitxml=" + junit, *arguments]
    return int(runner.main(arguments, plugins=[Recorder(result)]))


class TookTooLong(BaseException):
    pass


def watch(seconds):
    """From now on a test may take this long; again and again, as it may catch what stops it."""
    import signal

    def stop(*_):
        raise TookTooLong("it did not end within %g s" % seconds)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


def unittest(result, junit, arguments):
    import unittest as runner

    limit = float(os.environ.get("PYTHEAS_TEST_TIMEOUT") or 0)
    if limit:
        watch(limit)

    class Listener(runner.TextTestResult):
        def startTest(self, test):
            if limit:
                watch(limit)
            self.began = time.monotonic()
            self.failed_before = len(self.failures) + len(self.errors)
            super().startTest(test)

        def say(self, test, outcome, text=""):
            began = getattr(self, "began", time.monotonic())
            result.add(test.id(), outcome, time.monotonic() - began, text)

        def addSuccess(self, test):
            super().addSuccess(test)
            self.say(test, "passed")

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self.say(test, "failed", self.failures[-1][1])

        def addError(self, test, err):
            super().addError(test, err)
            self.say(test, "error", self.errors[-1][1])

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.say(test, "skipped", reason)

        def addExpectedFailure(self, test, err):
            super().addExpectedFailure(test, err)
            self.say(test, "skipped", "expected to fail")

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self.say(test, "failed", "unexpected success")

        def addSubTest(self, test, subtest, err):
            super().addSubTest(test, subtest, err)
            if err is not None:
                is_failure = issubclass(err[0], test.failureException)
                kept = self.failures if is_failure else self.errors
                self.say(subtest, "failed" if is_failure else "error", kept[-1][1])

    class Runner(runner.TextTestRunner):
        resultclass = Listener

    if not arguments:
        start = next((name for name in ("tests", "test") if os.path.isdir(name)), ".")
        arguments = ["discover", "-s", start]
        if start != "." and os.path.isfile(os.path.join(start, "__init__.py")):
            arguments += ["-t", "."]
    program = runner.main(module=None, argv=["unittest", *arguments], exit=False, testRunner=Runner)
    if limit:
        watch(0)
    if junit:
        write_junit(result, junit)
    if not result.tests:
        return 5
    return 0 if program.result.wasSuccessful() else 1


def write_junit(result, path):
    from xml.sax.saxutils import escape, quoteattr

    def clean(text):
        return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)

    count = {name: sum(t["outcome"] == name for t in result.tests) for name in ("failed", "error", "skipped")}
    seconds = sum(test["seconds"] for test in result.tests)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<testsuites><testsuite name="unittest" tests="%d" failures="%d" errors="%d" skipped="%d" time="%.3f">'
        % (len(result.tests), count["failed"], count["error"], count["skipped"], seconds),
    ]
    tags = {"failed": "failure", "error": "error", "skipped": "skipped"}
    for test in result.tests:
        where, _, name = test["name"].rpartition(".")
        head = "<testcase classname=%s name=%s time=\"%.3f\"" % (
            quoteattr(clean(where)), quoteattr(clean(name)), test["seconds"])
        tag = tags.get(test["outcome"])
        if tag is None:
            lines.append(head + "/>")
        else:
            first = quoteattr(clean(test["text"].strip().rpartition("\n")[2]))
            body = escape(clean(test["text"]))
            lines.append("%s><%s message=%s>%s</%s></testcase>" % (head, tag, first, body, tag))
    lines.append("</testsuite></testsuites>\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def python(result, junit, arguments):
    """`-m MODULE …`, `-c CODE …` or `SCRIPT …`, as Python itself would run it."""
    import runpy

    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = 0 if end.code is None else end.code
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        import traceback

        text = traceback.format_exc()
        sys.stderr.write(text)
        result.add(arguments[0], "error", 0.0, text)
        code = 1
    else:
        code = 0
    return code


def main():
    target, junit, mode, *arguments = sys.argv[1:]
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != own]
    result = Result()
    code = 1
    try:
        code = {"pytest": pytest, "unittest": unittest, "python": python}[mode](result, junit, arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except ImportError as error:
        import traceback

        traceback.print_exc()
        result.add(mode, "error", 0.0, str(error))
    sys.stdout.flush()
    result.write(target, code)
    sys.exit(code)


if __name__ == "__main__":
    main()
