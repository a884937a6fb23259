numbers = []
while True:
    numbers.append(bytearray(1 << 20))
    numbers[-1][::4096] = b"x" * 256
