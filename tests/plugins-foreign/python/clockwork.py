"""A plugin in Python, built with componentize-py: what a toolchain that imports WASI brings along, and what it gets.

It counts blocks in its state, writes a row a block, and prints a line. The row says what time it was and what randomness
came, as Python's own library sees them.
"""

import os
import secrets
import socket
import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import processor
from wit_world.imports import rows, state, types

COUNT = b"count"


def integer(value):
    return rows.Column(rows.Cells_Integers([value]), b"")


def text(value):
    piece = value.encode()
    return rows.Column(rows.Cells_Texts(types.Pieces([len(piece)], piece)), b"")


def opens(path):
    try:
        with open(path):
            return "open"
    except OSError:
        return "refused"


def connects():
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
            one.connect(("127.0.0.1", 80))
            return "open"
    except OSError:
        return "refused"


def world():
    """Whether anything of the world can be seen."""
    return " ".join([
        opens("/etc/passwd"), connects(), str(len(os.environ)), str(len(sys.argv)), repr(sys.stdin.read())
    ])


class Processor(exports.Processor):
    def describe(self):
        kinds = processor.ColumnKind
        columns = [
            ("count", kinds.INTEGER),
            ("block_time", kinds.INTEGER),
            ("wall", kinds.INTEGER),
            ("monotonic", kinds.INTEGER),
            ("random", kinds.TEXT),
            ("world", kinds.TEXT),
        ]
        return processor.Descriptor(
            name="clockwork",
            version="0.1.0",
            description="says what a plugin in Python sees",
            state_version=1,
            columns=processor.WantedColumns(0),
            events=processor.WantedEvents(0),
            tables=[processor.Table(
                name="clockwork",
                kind=processor.TableKind.ANCHORED,
                columns=[processor.TableColumn(name, kind, False) for name, kind in columns],
                key=["count"],
                indexes=[],
            )],
            roles=[],
        )

    def start(self, info):
        pass

    def on_block(self, block):
        count = int.from_bytes(state.get(COUNT) or b"\0", "little") + 1
        state.put(COUNT, count.to_bytes(8, "little"))
        # An hour that is over at once, and does not move the clock.
        time.sleep(3600)
        rows.append(0, [
            integer(count),
            integer(block.header.time),
            integer(time.time_ns()),
            integer(time.monotonic_ns()),
            text(secrets.token_hex(16)),
            text(world()),
        ])
        print(f"block {block.header.height} is number {count}")
        print("a word to the errors", file=sys.stderr)
        return processor.BlockAnswer(None)

    def on_mempool(self, changes):
        pass

    def query(self, path, params):
        if path != "now":
            raise Err(processor.QueryError_NotFound(path))
        count = int.from_bytes(state.get(COUNT) or b"\0", "little")
        return f'{{"count": {count}, "wall": {time.time_ns()}, "random": "{secrets.token_hex(16)}"}}'
