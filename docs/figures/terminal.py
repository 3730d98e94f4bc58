"""Draws docs/figures/terminal.svg: a session of `minke run` as it was typed and printed.

    python docs/figures/terminal.py target/release/minke docs/figures/terminal.svg

The program runs at a pseudo-terminal of 88 columns; the lines below are typed, and what it prints is drawn. Nothing is
added or left out. Standard library only.
"""

import fcntl
import html
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

TYPED = ["make 45 from 20 5 5", "/new", "/think fold", "make 60 from 17 3 3", "/set budegt 64", "/ctx", "/save countdown"]
COLUMNS, ROWS = 88, 200
# Pictures join spaces otherwise.
NO_BREAK = "\u00a0"
ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """The few things that the program asks of a terminal."""

    def __init__(self):
        self.lines, self.row, self.column, self.dim = [[]], 0, 0, False

    def put(self, character):
        if self.column == COLUMNS:
            self.row, self.column = self.row + 1, 0
        while len(self.lines) <= self.row:
            self.lines.append([])
        line = self.lines[self.row]
        line.extend([(" ", False)] * (self.column + 1 - len(line)))
        line[self.column] = (character, self.dim)
        self.column += 1

    def control(self, arguments, letter):
        count = int(arguments) if arguments.isdigit() else 1
        if letter == "m":
            self.dim = arguments == "2"
        elif letter in "ABCD":
            move = {"A": (-count, 0), "B": (count, 0), "C": (0, count), "D": (0, -count)}[letter]
            self.row, self.column = max(0, self.row + move[0]), max(0, self.column + move[1])
        elif letter == "K":
            start = 0 if arguments == "2" else self.column
            self.lines[self.row] = self.lines[self.row][:start] if self.row < len(self.lines) else []
        elif letter == "J":
            self.lines = self.lines[: self.row + 1]
            self.lines[self.row] = self.lines[self.row][: self.column]

    def feed(self, text):
        at = 0
        while at < len(text):
            escape = ESCAPE.match(text, at)
            if escape:
                self.control(*escape.groups())
                at = escape.end()
                continue
            character, at = text[at], at + 1
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.row, self.column = self.row + 1, 0
                while len(self.lines) <= self.row:
                    self.lines.append([])
            elif character >= " ":
                self.put(character)


def record(program):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {"TERM": "xterm-256color", "HOME": tempfile.mkdtemp(), "PATH": os.environ["PATH"]}
    started = subprocess.Popen(
        ["setsid", "--ctty", program, "run"], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    printed = b""

    def read_until_quiet(seconds):
        nonlocal printed
        while select.select([master], [], [], seconds)[0]:
            try:
                printed += os.read(master, 4096)
            except OSError:
                return

    read_until_quiet(1.5)
    for line in TYPED:
        for character in line:
            os.write(master, character.encode())
            time.sleep(0.01)
        os.write(master, b"\r")
        read_until_quiet(1.5)
    os.write(master, b"\x04")
    read_until_quiet(0.5)
    started.wait()
    return printed.decode()


def draw(lines):
    width, height = 8.4, 19
    size = (round(COLUMNS * width + 40), len(lines) * height + 62)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}">',
        f'<rect width="{size[0]}" height="{size[1]}" rx="8" fill="#16181d"/>',
        *(f'<circle cx="{22 + 18 * i}" cy="20" r="5.5" fill="#3a3f4b"/>' for i in range(3)),
        '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="14"'
        ' fill="#d8dce4" xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        start = 0
        while start < len(line):
            dim = line[start][1]
            end = next((i for i in range(start, len(line)) if line[i][1] != dim), len(line))
            text = "".join(character for character, _ in line[start:end])
            if text.strip():
                fill = ' fill="#7d8594"' if dim else ""
                x, y = round(20 + start * width, 1), 54 + row * height
                length = f' textLength="{round(len(text) * width, 1)}"' if len(text) > 1 else ""
                out.append(f'<text x="{x}" y="{y}"{length}{fill}>{html.escape(text).replace(" ", NO_BREAK)}</text>')
            start = end
    return "\n".join([*out, "</g>", "</svg>", ""])


def main():
    program, picture = sys.argv[1:]
    screen = Screen()
    screen.feed("$ minke run\r\n" + record(program))
    lines = screen.lines
    while lines and not "".join(character for character, _ in lines[-1]).strip("> "):
        lines.pop()
    with open(picture, "w", encoding="utf-8") as file:
        file.write(draw(lines))


main()
