import asyncio
import random
import sys
import unittest

import pytheas

from sensor_node import collector
from sensor_node.main import Node
from sensor_node.settings import Settings


class Script:
    """A sensor that says what it is told to; none is a failure."""

    def __init__(self, *values):
        self.values = list(values)

    def read(self):
        value = self.values.pop(0)
        if value is None:
            raise OSError(5)
        return value


class Quiet(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.confirmed = 0
        self.before = pytheas.confirm
        pytheas.confirm = self.confirm
        pytheas.metrics.clear()
        del pytheas.lines[:]

    def tearDown(self):
        pytheas.confirm = self.before

    def confirm(self):
        self.confirmed += 1


class NodeTest(Quiet):
    async def test_readings_become_metrics(self):
        node = Node(Settings({"interval": "1ms", "window": "2"}), Script(20, 22, 24))
        await node.run(3)
        self.assertEqual(pytheas.metrics["temperature"], 23)
        self.assertEqual(pytheas.metrics["warm"], 0)

    async def test_a_warning_is_told_once(self):
        node = Node(Settings({"interval": "1ms", "window": "1"}), Script(29, 31, 32, 28))
        await node.run(4)
        self.assertEqual(len(pytheas.lines), 2)
        self.assertIn("warm", pytheas.lines[0])
        self.assertIn("calm", pytheas.lines[1])

    async def test_a_release_is_confirmed_by_its_first_good_reading(self):
        node = Node(Settings({"interval": "1ms"}), Script(None, None))
        await node.run(2)
        self.assertEqual(self.confirmed, 0)
        self.assertEqual(pytheas.metrics["failures"], 2)
        node.sensor = Script(20, 21)
        await node.run(2)
        self.assertEqual(self.confirmed, 1)


@unittest.skipUnless(sys.platform in ("linux", "darwin"), "needs sockets")
class CollectorTest(Quiet):
    async def test_readings_arrive_at_a_collector(self):
        heard = []

        async def serve(reader, writer):
            length = 0
            while True:
                line = await reader.readline()
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
                if line in (b"\r\n", b""):
                    break
            heard.append(await reader.readexactly(length))
            writer.write(b"HTTP/1.0 204 No Content\r\n\r\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = None
        while server is None:
            port = random.randrange(20000, 30000)
            try:
                server = await asyncio.start_server(serve, "127.0.0.1", port)
            except OSError:
                pass  # somebody has it
        try:
            url = "http://127.0.0.1:%d/readings" % port
            await Node(Settings({"collector": url}), Script(21.5)).run(1)
        finally:
            server.close()
            await server.wait_closed()
        self.assertEqual(heard, [b'{"temperature": 21.5}'])
        self.assertEqual(pytheas.lines, [])

    async def test_a_collector_that_is_away_does_not_stop_the_node(self):
        node = Node(Settings({"collector": "http://127.0.0.1:1/"}), Script(21.5))
        await node.run(1)
        self.assertEqual(len(pytheas.lines), 1)
        self.assertEqual(self.confirmed, 1)


class AddressTest(unittest.TestCase):
    def test_addresses(self):
        self.assertEqual(collector.split("http://a:8080/x/y"), ("a", 8080, "/x/y"))
        self.assertEqual(collector.split("http://a"), ("a", 80, "/"))
        self.assertRaises(ValueError, collector.split, "https://a/")
