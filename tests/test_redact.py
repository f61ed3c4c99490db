"""No file, line or request contains passwords or tokens, and a run with another password has the same identity."""

import base64
import contextlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from support import MICRO, command_in, configure, record
from wandb_server import Server

from patchbench.config.identity import factors_of, identity_of
from patchbench.redact import redact, without_secrets

PASSWORD, TOKEN = "hunter2canary", "t0kencanary"


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        ("s3://key:PA55@bucket/set", "s3://***@bucket/set"),
        ("simplecache::https://me:p@ss@host:80/set", "simplecache::https://***@host:80/set"),
        (r"data_dir=s3\://key\:PA55@bucket", r"data_dir=s3\://***@bucket"),
        ("https://host/a.tar?token=abc&part=2", "https://host/a.tar?token=***&part=2"),
        ("gs://b/x?X-Goog-Signature=ab12&X-Goog-Date=2026", "gs://b/x?X-Goog-Signature=***&X-Goog-Date=2026"),
        ("az://c/x?sv=2024&sig=a%2Fb%3D", "az://c/x?sv=2024&sig=***"),
        ("https://h/x?v=abcdefghijklmnopqrst", "https://h/x?v=***"),
        ("root=https://h/x?token=abc: no such file", "root=https://h/x?token=***: no such file"),
        ("URL('https://h/x?token=abc'), 403", "URL('https://h/x?token=***'), 403"),
        ({"hub_token": "abc", "label_key": "cls"}, {"hub_token": "***", "label_key": "cls"}),
        ({"options": [{"aws_secret_access_key": "abc"}]}, {"options": [{"aws_secret_access_key": "***"}]}),
        ("+data.api_token=t0k is no option", "+data.api_token=*** is no option"),
        ("HF_TOKEN=t0k foo.api_key='t0k' data.label_key=x", "HF_TOKEN=*** foo.api_key='***' data.label_key=x"),
        ("https://host/x@v2/y", "https://host/x@v2/y"),
        ("pos=[learned,rope] mail me@host?", "pos=[learned,rope] mail me@host?"),
        ("VisionTransformer(class_token=False, hub_token=t0k)", "VisionTransformer(class_token=False, hub_token=***"),
        (7, 7),
    ],
)  # fmt: skip
def test_secrets_of_urls_and_of_entries_are_hidden_and_nothing_else(value, clean):
    assert without_secrets(value) == redact(value) == clean
    assert without_secrets(clean) == clean


def test_an_identity_and_a_name_do_not_depend_on_a_password(tmp_path):
    found = set()
    for login in ("", "me:one@", "me:another@"):
        cfg = configure("data=shards", f'data.root="memory://{login}set/?token={login[3:]}x"')
        choices = cfg.hydra.runtime.choices
        found.add((identity_of(cfg, choices), factors_of(cfg, choices)["data"]))
    [(_, name)] = found
    assert name == "shards-set"


class Guarded(SimpleHTTPRequestHandler):
    """A server of files, whole or in ranges, for clients that know the password."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        if base64.b64decode(given).decode() not in (f"me:{PASSWORD}", "me:another"):
            self.send_error(401)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if file.is_dir() or not wanted:
            super().do_GET()
            return
        first, last, data = int(wanted[1]), int(wanted[2]), file.read_bytes()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files in `folder`; yield host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_archive(path: Path) -> None:
    """Write an archive with coloured images of two classes."""
    with tarfile.open(path, "w") as archive:
        for i in range(40):
            file = io.BytesIO()
            Image.new("RGB", (16, 16), [(200, i, 0), (0, i, 200)][i % 2]).save(file, "png")
            for suffix, held in (("png", file.getvalue()), ("cls", str(i % 2).encode())):
                entry = tarfile.TarInfo(f"{i:04d}.{suffix}")
                entry.size = len(held)
                archive.addfile(entry, io.BytesIO(held))


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for commands, in which no password may be found afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    for path in filter(Path.is_file, folder.rglob("*")):
        assert hidden(path.read_bytes()), path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server of an archive for clients that know one of its passwords."""
    data = tmp_path / "data" / "set"
    data.mkdir(parents=True)
    write_archive(data / "train-0.tar")
    with served(tmp_path / "data") as host:
        yield host


def hidden(held: bytes) -> bool:
    return not any(canary.encode() in held for canary in (PASSWORD, TOKEN, "wrongcanary"))


def say(work: Path, script: str, *arguments: str, **env: str) -> tuple[int, str]:
    """Run a command, check that it prints no password, and return its exit code and its output."""
    done = command_in(work, script, *arguments, **env)
    said = done.stdout + done.stderr
    assert hidden(said.encode()), said
    return done.returncode, said


def root(host: str, password: str, option: str = "data.root") -> str:
    return f'{option}="http://me:{password}@{host}/set/"'


SHARDS = [*MICRO, "data=shards", "epochs=1", "limit_batches=1"]


@pytest.mark.promise("a password or token stands in a URL of the data", "No file of a run holds it")
def test_a_password_of_the_data_is_kept_nowhere_and_the_run_can_be_repeated(work, host):
    with Server() as server:
        env = {**server.env, "WANDB_MODE": "online"}
        notes = f'logger.wandb.notes="see https://host/?token={TOKEN}"'
        code, said = say(work, "train.py", *SHARDS, root(host, PASSWORD), notes, "logger.checkpoints=true", **env)
        assert code == 0, said
    assert server.artefacts
    assert hidden(b"\n".join(server.bodies))
    done = record(work)
    assert done["config"]["data"]["root"] == f"http://***@{host}/set/"
    assert done["config"]["logger"]["wandb"]["notes"] == "see https://host/?token=***"
    assert done["factors"]["data"] == "shards-set"
    code, said = say(work, "train.py", *SHARDS, root(host, "another"), "logger=csv")
    assert "This run was done before" in said
    [ckpt] = work.rglob("best.ckpt")
    code, said = say(work, "evaluate.py", f"ckpt={ckpt}", "trainer=cpu")
    assert code == 2
    assert re.fullmatch(
        rf"error: the checkpoint contains no passwords and tokens, only data.root=http://\*\*\*@{host}/set/: "
        r"give data_root=<its folder or URL>\n",
        said,
    )


@pytest.mark.promise("a password or token stands in a URL, and commands fail", "No line of theirs holds it")
@pytest.mark.slow
def test_commands_print_no_password_of_the_data(work, host):
    """The commands are sweeps, evaluations, and one that fails at the password with a traceback."""
    code, said = say(work, "train.py", "-m", *SHARDS, root(host, PASSWORD), "logger=csv", "seed=1,2")
    assert code == 0, said
    code, said = say(work, "train.py", "-m", *SHARDS, root(host, PASSWORD), "hydra/launcher=basic", "seed=1,2")
    assert code == 0, said
    assert "http://***@" in said
    ckpt = sorted(work.rglob("best.ckpt"))[0]
    code, said = say(work, "evaluate.py", f"ckpt={ckpt}", "trainer=cpu", root(host, PASSWORD, "data_root"))
    assert code == 0, said
    for more in ([], ["-m", "seed=1,2"]):
        code, said = say(work, "train.py", *SHARDS, root(host, "wrongcanary"), "logger=csv", "rerun=true", *more)
        assert code, said
        assert "401" in said
