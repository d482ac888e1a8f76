"""Start a call and steer it, from a shell: the same as the console command `ackbridge`."""

from ackbridge.cli import run

if __name__ == "__main__":
    run()
