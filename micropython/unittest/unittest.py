# `unittest` for MicroPython: what CPython's has that tests of boards use, in one module.
#
# Same names, same order of calls. Not here: mocks, `assertLogs`, `assertWarns`, `addTypeEqualityFunc`,
# `load_tests`. How tests are found, run and told is `pytheas_tests.py`'s; `main()` is only that.


class SkipTest(Exception):
    pass


class _Expected(Exception):
    # An expected failure came (`cause`), or did not (none).
    def __init__(self, cause):
        super().__init__()
        self.cause = cause


def is_coroutine(value):
    return hasattr(value, "send") and hasattr(value, "close")


def skip(reason):
    def decorate(thing):
        if isinstance(thing, type):
            thing._skip = reason
            return thing

        # Functions have no attributes here.
        def skipped(*_):
            raise SkipTest(reason)

        return skipped

    if not isinstance(reason, str):  # `@skip` without a reason
        thing, reason = reason, ""
        return decorate(thing)
    return decorate


def skipIf(condition, reason):
    return skip(reason) if condition else lambda thing: thing


def skipUnless(condition, reason):
    return skipIf(not condition, reason)


def expectedFailure(test):
    async def wait(running):
        try:
            await running
        except SkipTest:
            raise
        except Exception as error:
            raise _Expected(error)
        raise _Expected(None)

    def run(self):
        try:
            running = test(self)
        except SkipTest:
            raise
        except Exception as error:
            raise _Expected(error)
        if is_coroutine(running):
            return wait(running)
        raise _Expected(None)

    return run


class _Raises:
    def __init__(self, expected, pattern=None, msg=None):
        self.expected = expected
        self.pattern = pattern
        self.msg = msg
        self.exception = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            names = self.expected if isinstance(self.expected, tuple) else (self.expected,)
            raise AssertionError(
                _said(self.msg, "%s not raised" % " or ".join(name.__name__ for name in names))
            )
        if not isinstance(error, self.expected):
            return False
        self.exception = error
        if self.pattern is not None and not _found(self.pattern, str(error)):
            raise AssertionError(_said(self.msg, "%r does not match %r" % (self.pattern, str(error))))
        return True


class _SubTest:
    def __init__(self, test, name):
        self.test = test
        self.name = name

    def __enter__(self):
        self.test._inner.append(self.name)

    def __exit__(self, kind, error, trace):
        test = self.test
        name = " ".join(test._inner)
        test._inner.pop()
        if kind is None or not issubclass(kind, Exception):
            return False
        if isinstance(error, _Expected):
            return False
        test._tell_inner(name, error)
        return True


def _said(msg, text):
    return text if msg is None else "%s : %s" % (text, msg)


def _found(pattern, text):
    if isinstance(pattern, str):
        import re

        pattern = re.compile(pattern)
    return pattern.search(text)


class TestCase:
    failureException = AssertionError

    def __init__(self, methodName="runTest"):
        self._name = methodName
        self._cleanups = []
        self._inner = []
        self._tell_inner = None

    def id(self):
        kind = type(self)
        return "%s.%s.%s" % (getattr(kind, "_module", "__main__"), kind.__name__, self._name)

    def shortDescription(self):
        return None

    def setUp(self):
        pass

    def tearDown(self):
        pass

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def skipTest(self, reason):
        raise SkipTest(reason)

    def fail(self, msg=None):
        raise AssertionError(msg or "failed")

    def subTest(self, msg=None, **values):
        parts = [] if msg is None else ["[%s]" % msg]
        if values:
            parts.append("(%s)" % ", ".join("%s=%r" % (name, values[name]) for name in sorted(values)))
        return _SubTest(self, " ".join(parts) or "(<subtest>)")

    def addCleanup(self, function, *args, **kwargs):
        self._cleanups.append((function, args, kwargs))

    def enterContext(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def _check(self, holds, msg, text, *values):
        if not holds:
            raise AssertionError(_said(msg, text % values))

    def assertEqual(self, first, second, msg=None):
        self._check(first == second, msg, "%r != %r", first, second)

    assertListEqual = assertTupleEqual = assertSetEqual = assertEqual
    assertDictEqual = assertSequenceEqual = assertMultiLineEqual = assertEqual

    def assertNotEqual(self, first, second, msg=None):
        self._check(first != second, msg, "%r == %r", first, second)

    def assertTrue(self, value, msg=None):
        self._check(value, msg, "%r is not true", value)

    def assertFalse(self, value, msg=None):
        self._check(not value, msg, "%r is not false", value)

    def assertIs(self, first, second, msg=None):
        self._check(first is second, msg, "%r is not %r", first, second)

    def assertIsNot(self, first, second, msg=None):
        self._check(first is not second, msg, "unexpectedly identical: %r", first)

    def assertIsNone(self, value, msg=None):
        self._check(value is None, msg, "%r is not None", value)

    def assertIsNotNone(self, value, msg=None):
        self._check(value is not None, msg, "unexpectedly None")

    def assertIn(self, member, container, msg=None):
        self._check(member in container, msg, "%r not found in %r", member, container)

    def assertNotIn(self, member, container, msg=None):
        self._check(member not in container, msg, "%r unexpectedly found in %r", member, container)

    def assertIsInstance(self, value, kind, msg=None):
        self._check(isinstance(value, kind), msg, "%r is not an instance of %r", value, kind)

    def assertNotIsInstance(self, value, kind, msg=None):
        self._check(not isinstance(value, kind), msg, "%r is an instance of %r", value, kind)

    def assertGreater(self, first, second, msg=None):
        self._check(first > second, msg, "%r not greater than %r", first, second)

    def assertGreaterEqual(self, first, second, msg=None):
        self._check(first >= second, msg, "%r not greater than or equal to %r", first, second)

    def assertLess(self, first, second, msg=None):
        self._check(first < second, msg, "%r not less than %r", first, second)

    def assertLessEqual(self, first, second, msg=None):
        self._check(first <= second, msg, "%r not less than or equal to %r", first, second)

    def _is_near(self, first, second, places, delta):
        if first == second:
            return True
        if delta is not None:
            return abs(first - second) <= delta
        return round(abs(first - second), 7 if places is None else places) == 0

    def assertAlmostEqual(self, first, second, places=None, msg=None, delta=None):
        near = self._is_near(first, second, places, delta)
        self._check(near, msg, "%r != %r", first, second)

    def assertNotAlmostEqual(self, first, second, places=None, msg=None, delta=None):
        near = self._is_near(first, second, places, delta)
        self._check(not near, msg, "%r == %r", first, second)

    def assertCountEqual(self, first, second, msg=None):
        rest = list(second)
        first = list(first)
        same = len(first) == len(rest)
        for item in first:
            if item in rest:
                rest.remove(item)
            else:
                same = False
        self._check(same, msg, "%r and %r have not the same items", first, second)

    def assertRegex(self, text, pattern, msg=None):
        self._check(_found(pattern, text), msg, "%r does not match %r", pattern, text)

    def assertNotRegex(self, text, pattern, msg=None):
        self._check(not _found(pattern, text), msg, "%r matches %r", pattern, text)

    def assertRaises(self, expected, function=None, *args, **kwargs):
        if function is None:
            return _Raises(expected, None, kwargs.get("msg"))
        with _Raises(expected):
            function(*args, **kwargs)

    def assertRaisesRegex(self, expected, pattern, function=None, *args, **kwargs):
        if function is None:
            return _Raises(expected, pattern, kwargs.get("msg"))
        with _Raises(expected, pattern):
            function(*args, **kwargs)


class IsolatedAsyncioTestCase(TestCase):
    async def asyncSetUp(self):
        pass

    async def asyncTearDown(self):
        pass

    def addAsyncCleanup(self, function, *args, **kwargs):
        self.addCleanup(function, *args, **kwargs)

    async def enterAsyncContext(self, manager):
        value = await manager.__aenter__()
        self.addCleanup(manager.__aexit__, None, None, None)
        return value


def main(*_, **__):
    # Of a test file that is run by itself.
    import pytheas_tests

    module = __import__("__main__")
    for step in pytheas_tests.of_module("__main__", module, (), ()):
        pytheas_tests.drive(step)
