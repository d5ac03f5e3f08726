"""Times run-length coding in Python with the algorithm of the challenge's helper.

Reads one run-length string per line from standard input (1024x1024, column-major,
gaps relative to the end of the run before). Decodes all of them, encodes every
N-th again (N is the argument), checks that the text is the same, and prints both
times in seconds as JSON. Needs numpy.
"""
import json
import sys
import time

import numpy as np

SIZE = 1024
ROUNDS = 5  # rounds of decoding; the fastest counts, because other work may slow some down


def decode(text):
    """Returns a float array with 255 in the runs, by one slice assignment per run."""
    numbers = np.asarray([int(word) for word in text.split()])
    flat = np.zeros(SIZE * SIZE)
    position = 0
    for gap, length in zip(numbers[0::2], numbers[1::2]):
        position += gap
        flat[position:position + length] = 255
        position += length
    return flat.reshape(SIZE, SIZE)


def encode(mask):
    """Returns the runs of a mask; it visits the pixels one by one."""
    words = []
    last, since, start, length = 0, 0, -1, 0
    for x in range(SIZE):
        for y in range(SIZE):
            value = mask[x][y]
            if value != last:
                if value == 255:
                    start, length = since, 1
                else:
                    words.append(str(start))
                    words.append(str(length))
                    start, length, since = -1, 0, 0
            elif start > -1:
                length += 1
            last = value
            since += 1
    return " ".join(words)


def main():
    every = int(sys.argv[1])
    rows = sys.stdin.read().splitlines()

    decode_seconds = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for text in rows:
            decode(text)
        decode_seconds = min(decode_seconds, time.perf_counter() - begin)

    some = rows[::every]
    masks = [decode(text) for text in some]
    begin = time.perf_counter()
    back = [encode(mask) for mask in masks]
    encode_seconds = time.perf_counter() - begin
    assert back == some, "the text changed on the way"
    json.dump({"decode": decode_seconds, "encode": encode_seconds, "encoded": len(some),
               "python": sys.version.split()[0], "numpy": np.__version__}, sys.stdout)


main()
