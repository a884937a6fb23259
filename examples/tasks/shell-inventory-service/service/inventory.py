"""One request a connection: `LIST`, or `GET NAME`."""

import socketserver

STOCK = {"bolt": 1200, "nut": 950, "washer": 3111, "gasket": 17, "valve": 4}


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline(200).decode("utf-8", "replace").split()
        if words == ["LIST"]:
            self.wfile.write("".join(f"{name}\n" for name in STOCK).encode())
        elif len(words) == 2 and words[0] == "GET":
            self.wfile.write(f"{STOCK.get(words[1], 0)}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


Server(("127.0.0.1", 7070), Handler).serve_forever()
