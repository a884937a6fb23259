import socket


def ask(request):
    with socket.create_connection(("127.0.0.1", 7070)) as connection:
        connection.sendall(request.encode() + b"\n")
        return connection.makefile().read().split()


with open("output/total", "w") as out:
    print(sum(int(ask(f"GET {name}")[0]) for name in ask("LIST")), file=out)
