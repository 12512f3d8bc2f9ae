# Serves a pseudo-terminal over TCP, as it is or by pyserial's RFC 2217: serve.py PTY tcp|rfc2217
import socket
import sys
import threading

import serial
import serial.rfc2217


class Pty(serial.Serial):
    # A pseudo-terminal has no lines; their states are noted.
    def _update_dtr_state(self):
        print("dtr", self._dtr_state, flush=True)

    def _update_rts_state(self):
        print("rts", self._rts_state, flush=True)

    cts = dsr = ri = cd = property(lambda self: False)


port = Pty(sys.argv[1], 115200, timeout=0.05, exclusive=False)
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
while True:
    peer, _ = listener.accept()
    lock = threading.Lock()

    class Out:
        def write(self, data):
            with lock:
                peer.sendall(data)

    manager = serial.rfc2217.PortManager(port, Out()) if sys.argv[2] == "rfc2217" else None
    alive = True

    def up():
        while alive:
            data = port.read(port.in_waiting or 1)
            if data:
                Out().write(b"".join(manager.escape(data)) if manager else data)

    thread = threading.Thread(target=up, daemon=True)
    thread.start()
    while True:
        data = peer.recv(4096)
        if not data:
            break
        port.write(b"".join(manager.filter(data)) if manager else data)
        print("baud", port.baudrate, flush=True)
    alive = False
    thread.join()
    peer.close()
