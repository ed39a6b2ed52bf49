"""Install Heddle into ./.venv from the hashed lock, with one line of progress. Standard library only.

Kept to syntax that old interpreters parse, so that they can say that they are too old."""

import os
import re
import shutil
import subprocess
import sys
import time

MINIMUM = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
LOCK = os.path.join(ROOT, "requirements.lock")
# What tests hold Heddle against. Apart, and without dependencies: of each one module is read, as a file.
ORACLES = os.path.join(ROOT, "deploy", "oracles.lock")
STAMP = os.path.join(VENV, ".installed")


def main():
    if sys.version_info < MINIMUM:
        fail(
            "Python %d.%d or newer is needed and %s is %d.%d; install one, or say make PYTHON=/path/to/python"
            % (MINIMUM + (sys.executable,) + tuple(sys.version_info[:2]))
        )
    started = time.monotonic()
    fresh_venv()
    with open(LOCK) as lock:
        total = len(re.findall(r"^[a-z0-9][^ ]*==", lock.read(), re.MULTILINE))
    pip(["install", "--require-hashes", "-r", LOCK], total)
    pip(["install", "--no-deps", "--no-build-isolation", "-e", ROOT], 1)
    apart = ["--no-deps", "--upgrade", "--target", os.path.join(VENV, "oracles")]
    pip(["install", "--require-hashes", "-r", ORACLES] + apart, 1)
    with open(STAMP, "w") as stamp:
        stamp.write(sys.version)
    say(
        "Heddle is installed in ./.venv (Python %d.%d.%d, %.0f s)"
        % (tuple(sys.version_info[:3]) + (time.monotonic() - started,))
    )
    if sys.stdout.isatty():
        sys.stdout.write("\n")


def fresh_venv():
    """A venv of this very interpreter; one of another version or with a broken link is made anew."""
    wanted = "%d.%d" % tuple(sys.version_info[:2])
    try:
        have = (
            subprocess.check_output([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
            .decode()
            .strip()
        )
    except (OSError, subprocess.CalledProcessError):
        have = None
    if have == wanted:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    say("making ./.venv with Python " + wanted)
    try:
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
    except (OSError, subprocess.CalledProcessError):
        fail("python3 cannot make a virtual environment; on Debian and Ubuntu install python3-venv")


def pip(arguments, total):
    """Run pip; show how many packages it has reached instead of its log, and its log when it fails."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input"] + arguments + ["--progress-bar", "off"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    lines, reached = [], 0
    for line in process.stdout:
        lines.append(line)
        if line.startswith(("Collecting ", "Obtaining ")):
            reached += 1
            say("installing %d of %d packages: %s" % (reached, total, line.split()[1].split("=")[0].split(";")[0]))
        elif line.startswith("Installing collected"):
            say("unpacking them" if total > 1 else "linking Heddle itself")
    if process.wait() != 0:
        sys.stdout.write("\n" + "".join(lines[-15:]))
        fail("pip could not install the locked packages; the lines above say why (network? disk?); then run make again")


def say(text):
    """One line that rewrites itself on a terminal, sparse lines elsewhere."""
    if sys.stdout.isatty():
        sys.stdout.write("\r\033[K" + text[: shutil.get_terminal_size().columns - 1])
    elif not text.startswith("installing") or re.search(r"installing \d*[05] of", text):
        sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text):
    sys.exit("heddle: " + text)


main()
