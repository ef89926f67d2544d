"""`askos exec` as a program of its own: streams, exit codes, terminals."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest


@pytest.fixture
def web(askos, cloud):
    askos("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    return cloud.find("web")


def test_streams_and_exit_code(web, program):
    done = program("exec", "web", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (*done.communicate(timeout=30), done.returncode) == (b"out\n", b"err\n", 3)


def test_nothing_is_lost_of_a_big_output(web, program, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))
    done = program("exec", "web", "cat", str(big))
    digest = hashlib.sha256()
    while data := done.stdout.read(100_000):
        digest.update(data)
        if digest.digest_size and len(data) % 7 == 0:
            time.sleep(0.001)  # A reader that is slow now and then.
    assert done.wait(30) == 0
    assert digest.digest() == hashlib.sha256(big.read_bytes()).digest()


def test_standard_input_goes_through_and_its_end_too(web, program, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(5_000_000))
    with big.open("rb") as source:
        done = program("exec", "-i", "web", "cat", stdin=source)
        out, err = done.communicate(timeout=60)
    assert (done.returncode, err, hashlib.sha256(out).digest()) == (
        0,
        b"",
        hashlib.sha256(big.read_bytes()).digest(),
    )


def test_a_conversation_over_pipes(web, program):
    done = program("exec", "-i", "web", "cat", stdin=subprocess.PIPE)
    for word in (b"one\n", b"two\n"):
        done.stdin.write(word)
        done.stdin.flush()
        assert done.stdout.readline() == word
    done.stdin.close()
    assert done.wait(30) == 0


def test_without_i_nothing_of_standard_input_is_taken(web, program):
    done = program("exec", "web", "cat", stdin=subprocess.PIPE)
    assert done.wait(30) == 0
    assert done.stdout.read() == b""


def test_environment_and_folder(web, program):
    done = program("exec", "-e", "A=b c", "-w", "/tmp", "web", "sh", "-c", "echo $A $PWD")
    assert done.communicate(timeout=30)[0] == b"b c /tmp\n"


def test_a_missing_program_is_127(web, program):
    done = program("exec", "web", "nonsense")
    _, err = done.communicate(timeout=30)
    assert done.returncode == 127
    assert err.startswith(b'askos: cannot run nonsense in web: exec: "nonsense": executable file not found')


def test_a_refused_handshake_tells_why(web, program, askos):
    done = program("exec", "nope", "true")
    _, err = done.communicate(timeout=30)
    assert (done.returncode, err) == (
        125, b"askos: cannot run true in nope: Container nope could not be found. See `askos ps -a`.\n")  # fmt: skip
    askos("kill", "web")
    askos("wait", "web")
    done = program("exec", "web", "true")
    _, err = done.communicate(timeout=30)
    assert done.returncode == 125
    assert b"in Stopped state. Start it with `askos start web`." in err


def test_a_refused_token_is_renewed(web, program, cloud):
    cloud.tokens.clear()
    done = program("exec", "web", "echo", "hi")
    assert (*done.communicate(timeout=30), done.returncode) == (b"hi\n", b"", 0)


def test_a_reader_that_leaves_is_no_error(web, program):
    done = program("exec", "web", "sh", "-c", "while echo yes; do :; done")
    done.stdout.read(10)
    done.stdout.close()
    assert done.wait(30) == 141
    assert done.stderr.read() == b""


def test_ctrl_c_is_130(web, program):
    done = program("exec", "web", "sh", "-c", "echo here; sleep 100")
    assert done.stdout.readline() == b"here\n"
    done.send_signal(signal.SIGINT)
    assert done.wait(30) == 130
    assert done.stderr.read() == b""


class Terminal:
    """A pseudo-terminal with the CLI in it."""

    def __init__(self, program, *args, width=100, height=30):
        self.master, self.slave = pty.openpty()
        self.size(width, height)
        self.before = termios.tcgetattr(self.slave)
        self.process = program(*args, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True)
        self.text = b""

    def size(self, width, height):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def expect(self, what: bytes):
        deadline = time.monotonic() + 20
        while what not in self.text:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.text
            self.text += os.read(self.master, 65536)
        self.text = self.text.split(what, 1)[1]

    def type(self, keys: bytes):
        os.write(self.master, keys)

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(program):
    opened = []

    def start(*args, **size):
        opened.append(Terminal(program, *args, **size))
        return opened[-1]

    yield start
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        one.close()


def test_a_shell_in_a_terminal(web, terminal):
    shell = terminal("exec", "-it", "web", "sh")
    shell.type(b"stty size\n")
    shell.expect(b"30 100\r\n")
    shell.size(90, 20)
    shell.process.send_signal(signal.SIGWINCH)
    # The size and what is typed take different ways.
    shell.type(b"until [ \"$(stty size)\" = '20 90' ]; do sleep 0.05; done; stty size\n")
    shell.expect(b"20 90\r\n")
    shell.type(b"sh -c 'echo be''gun; exec sleep 100'; echo $(( 40 + 2 ))\n")
    shell.expect(b"begun\r\n")  # said by what Ctrl-C is for
    shell.type(b"\x03")  # Ctrl-C reaches the process there and not our own.
    shell.expect(b"^C")
    shell.type(b"echo $(( 50 + 3 ))\n")
    shell.expect(b"53\r\n")
    assert not shell.restored()
    shell.type(b"exit 5\n")
    assert shell.process.wait(20) == 5
    assert shell.restored()


def test_the_terminal_is_restored_when_the_client_is_terminated(web, terminal):
    shell = terminal("exec", "-it", "web", "sh")
    shell.type(b"echo $(( 1 + 1 ))\n")
    shell.expect(b"2\r\n")
    assert not shell.restored()
    shell.process.terminate()
    assert shell.process.wait(20) == 143
    assert shell.restored()


def test_the_terminal_is_restored_when_the_handshake_fails(web, terminal):
    shell = terminal("exec", "-it", "nope", "sh")
    assert shell.process.wait(20) == 125
    assert shell.restored()


def test_a_terminal_needs_a_terminal(web, askos):
    ran = askos("exec", "-it", "web", "sh")
    assert (ran.code, ran.err) == (
        125, "askos: cannot run in web with -t: standard input is not a terminal. Leave -t out.\n")  # fmt: skip
