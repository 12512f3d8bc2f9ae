# Runs a project's tests on MicroPython and tells the host each step as one line:
#
#   \x1e{"begin": NAME}                   what runs now, so that a crash or a hang has a name
#   \x1e{"name": NAME, "outcome": passed|failed|error|skipped, "ms": N, "text": TRACEBACK}
#   \x1e{"end": true}
#
# Between `\x1e` and JSON stands the host's word for this run, so that nothing a test prints is taken
# for the runner's. `steps` gives a coroutine to wait for now and then: async tests run where the port wants them to.
import gc, io, json, sys, time

import unittest

LONGEST_TEXT = 4000
mark = "\x1e"


def tell(line):
    sys.stdout.write(mark + json.dumps(line) + "\n")


def text_of(error):
    gc.collect()
    try:
        out = io.StringIO()
        sys.print_exception(error, out)
        text = out.getvalue()
        return text if len(text) <= LONGEST_TEXT else "…" + text[-LONGEST_TEXT:]
    except MemoryError:
        return type(error).__name__


def result(name, began, outcome, text=""):
    tell({"name": name, "outcome": outcome, "ms": time.ticks_diff(time.ticks_ms(), began), "text": text})


def failed(name, began, error):
    if isinstance(error, unittest.SkipTest):
        result(name, began, "skipped", str(error))
    elif isinstance(error, unittest._Expected):
        if error.cause is None:
            result(name, began, "failed", "unexpected success")
        else:
            result(name, began, "skipped", "expected to fail")
    elif isinstance(error, AssertionError):
        result(name, began, "failed", text_of(error))
    else:
        result(name, began, "error", text_of(error))


def guarded(name, function):
    tell({"begin": name})
    began = time.ticks_ms()
    try:
        return True, function()
    except KeyboardInterrupt:
        raise  # the host's
    except BaseException as error:
        failed(name, began, error)
        return False, None


def find(module):
    # Classes that an import brought from another module are its own.
    for name in sorted(dir(module)):
        kind = getattr(module, name)
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase):
            if kind not in (unittest.TestCase, unittest.IsolatedAsyncioTestCase):
                yield name, kind


def one(test, name):
    # The calls of one test in order; a coroutine where one has to be waited for.
    is_async = isinstance(test, unittest.IsolatedAsyncioTestCase)
    first = None

    def told(inner, error):
        nonlocal first
        failed("%s %s" % (name, inner), time.ticks_ms(), error)
        first = first or unittest.SkipTest("told")

    test._tell_inner = told
    began = time.ticks_ms()

    async def run(call, *args, **kwargs):
        value = call(*args, **kwargs)
        if unittest.is_coroutine(value):
            if not is_async:
                value.close()
                raise TypeError("it is a coroutine: the class has to be an `IsolatedAsyncioTestCase`")
            await value

    async def whole():
        nonlocal first
        try:
            await run(test.setUp)
            if is_async:
                await run(test.asyncSetUp)
            try:
                await run(getattr(test, test._name))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                first = error
            try:
                if is_async:
                    await run(test.asyncTearDown)
            finally:
                await run(test.tearDown)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if first is None or isinstance(first, unittest.SkipTest):
                first = error
        while test._cleanups:
            function, args, kwargs = test._cleanups.pop()
            try:
                await run(function, *args, **kwargs)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                first = first or error

    def tell_result():
        if first is None:
            result(name, began, "passed")
        elif isinstance(first, unittest.SkipTest) and str(first) == "told":
            result(name, began, "told")
        else:
            failed(name, began, first)

    return is_async, whole, tell_result


def at_once(coroutine):
    # A coroutine that waits for nothing ends at its first step.
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise TypeError("it waits: the class has to be an `IsolatedAsyncioTestCase`")


def wanted(name, patterns):
    if not patterns:
        return True
    for pattern in patterns:
        at = 0
        for part in pattern.split("*"):
            at = name.find(part, at)
            if at < 0:
                break
            at += len(part)
        else:
            return True
    return False


def of_class(module, name, kind, skip, patterns):
    prefix = "%s.%s." % (module, name)
    tests = [test for test in sorted(dir(kind)) if test.startswith("test") and callable(getattr(kind, test))]
    tests = [test for test in tests if prefix + test not in skip and wanted(prefix + test, patterns)]
    if not tests or prefix + "setUpClass" in skip:
        return
    kind._module = module
    reason = getattr(kind, "_skip", None)
    if reason is not None:
        for test in tests:
            result(prefix + test, time.ticks_ms(), "skipped", reason)
        return
    went, _ = guarded(prefix + "setUpClass", kind.setUpClass)
    if not went:
        return
    for method in tests:
        test_name = prefix + method
        tell({"begin": test_name})
        gc.collect()
        is_async, whole, tell_result = one(kind(method), test_name)
        if is_async:
            yield whole()
        else:
            at_once(whole())
        tell_result()
    guarded(prefix + "tearDownClass", kind.tearDownClass)


def of_module(name, module, skip, patterns):
    set_up = getattr(module, "setUpModule", None)
    if set_up is not None:
        went, _ = guarded(name + ".setUpModule", set_up)
        if not went:
            return
    for class_name, kind in find(module):
        for step in of_class(name, class_name, kind, skip, patterns):
            yield step
    tear_down = getattr(module, "tearDownModule", None)
    if tear_down is not None and name + ".tearDownModule" not in skip:
        guarded(name + ".tearDownModule", tear_down)


def steps(modules, skip, patterns, key):
    global mark
    mark = "\x1e" + key
    skip = set(skip)
    version = ".".join(str(number) for number in sys.implementation.version[:3])
    tell({"machine": "MicroPython %s, %s" % (version, sys.platform)})
    for name in modules:
        if name in skip or name + ".setUpModule" in skip:
            continue

        def load():
            module = __import__(name)
            for part in name.split(".")[1:]:
                module = getattr(module, part)
            return module

        went, module = guarded(name, load)
        if not went:
            continue
        for step in of_module(name, module, skip, patterns):
            yield step
    tell({"end": True})


def drive(coroutine):
    import asyncio

    asyncio.new_event_loop()
    asyncio.run(coroutine)


def run(modules, skip=(), patterns=(), key=""):
    for step in steps(modules, skip, patterns, key):
        drive(step)


async def run_inside(modules, skip=(), patterns=(), key=""):
    # For ports whose event loop is not theirs to start (wasm).
    for step in steps(modules, skip, patterns, key):
        await step
