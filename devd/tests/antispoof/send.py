"""Sends frames on one interface and tells which of them another one receives.

    send.py SENDER RECEIVER PROTOCOL MARKER < FRAMES
    send.py SENDER < FRAMES

The second form sends the frames as they are, and tells nothing.

PROTOCOL is the type of frames that are heard of (3: all). MARKER and each line of FRAMES are
frames in hexadecimal digits. The destination address is replaced by a number, by which a frame
is known again. Behind each frame goes the marker, which always arrives: frames stay in their
order on one processor, so a frame that has not come before its marker was dropped. One line a
frame is written, 1 or 0.
"""
import os
import socket
import sys
import time

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

def packets(interface, protocol):
    it = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    it.bind((interface, protocol))
    return it

out = packets(sys.argv[1], 0)
if len(sys.argv) == 2:
    for line in sys.stdin:
        out.send(bytes.fromhex(line.strip()))
    sys.exit()
into = packets(sys.argv[2], int(sys.argv[3]))
marker = bytes.fromhex(sys.argv[4])
number = 0

def send(frame):
    """The destination that the frame was given."""
    global number
    number += 1
    destination = bytes([2, 0xde]) + number.to_bytes(4, "big")
    out.send(destination + frame[6:])
    return destination

def arrives(destinations, seconds):
    """Which of them comes first? None if none does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        into.settimeout(max(end - time.monotonic(), 0.001))
        try:
            found = into.recv(4096)[:6]
        except TimeoutError:
            return None
        if found in destinations:
            return found
    return None

# The interfaces may have come up a moment ago.
for _ in range(300):
    if arrives({send(marker)}, 0.1):
        break
else:
    sys.exit("the marker does not arrive")
for line in sys.stdin:
    tested, end = send(bytes.fromhex(line.strip())), send(marker)
    first = arrives({tested, end}, 30)
    if first is None:
        sys.exit("neither the frame nor its marker has arrived")
    print(1 if first == tested else 0)
    if first == tested and arrives({end}, 30) is None:
        sys.exit("the marker has not arrived")
