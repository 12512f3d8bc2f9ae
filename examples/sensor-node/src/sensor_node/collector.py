"""Readings as JSON to an HTTP server of one's own, beside what the hub is told."""

import asyncio
import json

TIMEOUT = 10


def split(url):
    """Host, port and path of an `http://` address."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    name, _, port = host.partition(":")
    if scheme != "http" or not name:
        raise ValueError("`%s` is no http:// address" % url)
    return name, int(port or 80), slash + path or "/"


async def post(url, reading):
    """Sends one reading; `OSError` when the server does not take it."""
    host, port, path = split(url)
    body = json.dumps(reading).encode()
    head = "POST %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), TIMEOUT)
    try:
        writer.write((head % (path, host, len(body))).encode() + body)
        await asyncio.wait_for(writer.drain(), TIMEOUT)
        status = (await asyncio.wait_for(reader.readline(), TIMEOUT)).split()
    finally:
        writer.close()
        await writer.wait_closed()
    if len(status) < 2 or not status[1].startswith(b"2"):
        raise OSError("the collector answers %s" % status)
